#!lua flags=allow-oom
-- nack(KEYS = {namespace}, ARGV = {worker, queue, id})
--
-- Moves a message that the worker has pulled to the queue's dead letters, exactly as Dramatiq's own nack would.

-- lanes.lua

local list, id = namespace .. ':' .. ARGV[2], ARGV[3]
local acks = namespace .. ':__acks__.' .. ARGV[1] .. '.' .. ARGV[2]
local time = redis.call('time')
local now = time[1] * 1000 + math.floor(time[2] / 1000) -- milliseconds

if redis.call('srem', acks, id) == 0 then
  return
end
local message = redis.call('hget', list .. '.msgs', id)
if message then
  release({id}, {message})
  redis.call('zadd', list .. '.XQ', now, id)
  redis.call('hset', list .. '.XQ.msgs', id, message)
  redis.call('hdel', list .. '.msgs', id)
end
