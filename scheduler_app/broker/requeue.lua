#!lua flags=allow-oom
-- requeue(KEYS = {namespace}, ARGV = {worker, queue, id, id, ...})
--
-- Puts messages that the worker has pulled back to where they wait, as Dramatiq's own requeue would. None of them has
-- begun, so their slots are free.

-- lanes.lua

local messages = namespace .. ':' .. ARGV[2] .. '.msgs'
local acks = namespace .. ':__acks__.' .. ARGV[1] .. '.' .. ARGV[2]

for i = 3, #ARGV do
  local id = ARGV[i]
  local message = redis.call('srem', acks, id) == 1 and redis.call('hget', messages, id)
  if message then
    refund(message)
    release({id}, {message})
    put(ARGV[2], id, message, 'rpush')
  end
end
if next(woken) then
  redis.call('publish', namespace .. ':__wake_up__', 1)
end
