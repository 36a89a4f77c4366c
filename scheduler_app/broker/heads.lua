-- heads(KEYS = {namespace}, ARGV = {queue, queue, ...}) -> per queue the ids that wait longest, in some of its lanes
--
-- The plain list's, and those of the lanes whose turn is next or that are drawn at random: there may be a million lanes.

-- lanes.lua

local SOME = 20
local heads = {}
for i, queue in ipairs(ARGV) do
  local list = namespace .. ':' .. queue
  heads[i] = {redis.call('lindex', list, 0) or nil}
  for _, some in ipairs({redis.call('lrange', list .. '.ring', 0, SOME), redis.call('hrandfield', heads_of(queue), SOME)}) do
    for _, lane in ipairs(some) do
      heads[i][#heads[i] + 1] = lane ~= '' and head_of(queue, lane) or nil
    end
  end
end
return heads
