-- heads(KEYS = {namespace}, ARGV = {queue, queue, ...}) -> per queue the ids that wait longest, in some of its lanes
--
-- The plain list's, and those of the lanes whose turn is next or that are drawn at random: there may be a million lanes.

-- lanes.lua

local SOME = 20
local heads = {}
for i, queue in ipairs(ARGV) do
  local list = namespace .. ':' .. queue
  heads[i] = {redis.call('lindex', list, 0) or nil}
  for _, lanes in ipairs({redis.call('lrange', list .. '.ring', 0, SOME), redis.call('srandmember', list .. '.lanes', SOME)}) do
    for _, lane in ipairs(lanes) do
      local head = lane ~= '' and redis.call('lindex', list_of(queue, lane), 0)
      if head then
        heads[i][#heads[i] + 1] = head
      end
    end
  end
end
return heads
