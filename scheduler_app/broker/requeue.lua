#!lua flags=allow-oom
-- requeue(KEYS = {namespace}, ARGV = {worker, queue, id, id, ...})
--
-- Puts messages that the worker has pulled back into the queue's list, exactly as Dramatiq's own requeue would.

local list = KEYS[1] .. ':' .. ARGV[2]
local acks = KEYS[1] .. ':__acks__.' .. ARGV[1] .. '.' .. ARGV[2]

for i = 3, #ARGV do
  if redis.call('srem', acks, ARGV[i]) == 1 and redis.call('hexists', list .. '.msgs', ARGV[i]) == 1 then
    redis.call('rpush', list, ARGV[i])
  end
end
