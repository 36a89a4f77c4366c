#!lua flags=allow-oom
-- discard(KEYS = {namespace}, ARGV = {queue, longest search, id, id, ...}) -> how many messages it deleted
--
-- Deletes waiting messages whose tasks wait no longer. A message that is deeper in its lane than the longest search
-- stays: the worker that pulls it finds its task out of date.

-- lanes.lua

local queue, longest = ARGV[1], ARGV[2]
local messages = namespace .. ':' .. queue .. '.msgs'
local deleted = 0

local function remove_from_list(lane, id)
  local list = list_of(queue, lane)
  return redis.call('lpos', list, id, 'maxlen', longest) and redis.call('lrem', list, 1, id) == 1
end

local function remove(lane, id)
  local head, has_more = head_of(queue, lane)
  if id == head then
    head = has_more and redis.call('lpop', list_of(queue, lane))
  elseif not has_more or not remove_from_list(lane, id) then
    return false
  end
  if head then
    redis.call('hset', heads_of(queue), lane, head .. (has_list(queue, lane) and '+' or ''))
    count_listed(queue, -1)
  elseif lane ~= '' then
    redis.call('hdel', heads_of(queue), lane) -- it is still in the ring, or waits
    if has_more then
      forget_listed(queue)
    end
  end
  return true
end

for i = 3, #ARGV do
  local message = redis.call('hget', messages, ARGV[i])
  if message and remove(lane_of(message), ARGV[i]) then
    redis.call('hdel', messages, ARGV[i])
    deleted = deleted + 1
  end
end
return deleted
