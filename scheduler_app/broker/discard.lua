#!lua flags=allow-oom
-- discard(KEYS = {namespace}, ARGV = {queue, longest search, id, id, ...}) -> how many messages it deleted
--
-- Deletes waiting messages whose tasks wait no longer. A message that is deeper in its lane than the longest search
-- stays: the worker that pulls it finds its task out of date.

-- lanes.lua

local queue, longest = ARGV[1], ARGV[2]
local messages = namespace .. ':' .. queue .. '.msgs'
local deleted = 0

for i = 3, #ARGV do
  local message = redis.call('hget', messages, ARGV[i])
  local lane = message and lane_of(message)
  if message and redis.call('lpos', list_of(queue, lane), ARGV[i], 'maxlen', longest) then
    redis.call('lrem', list_of(queue, lane), 1, ARGV[i])
    redis.call('hdel', messages, ARGV[i])
    if lane ~= '' then
      redis.call('hincrby', namespace .. ':__laned__', queue, -1)
      if redis.call('exists', list_of(queue, lane)) == 0 then
        redis.call('srem', namespace .. ':' .. queue .. '.lanes', lane) -- it is still in the ring, or waits
      end
    end
    deleted = deleted + 1
  end
end
return deleted
