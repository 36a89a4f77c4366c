-- publish(KEYS = {namespace}, ARGV = {command, queue, id, message, queue, id, message, ...}) -> how many were new
--
-- Puts messages into Dramatiq's keys and wakes the workers, unless the queue is paused. The command is rpush, or lpush for
-- those that come before all that wait: the last one of them is then the first. A message that is still there is left
-- alone. Its id stays in $namespace:$queue.msgs from now until the message is acknowledged, also while a worker has it.

local namespace = KEYS[1]
local new, wake = 0, false
local paused = {}
for _, queue in ipairs(redis.call('smembers', namespace .. ':__paused__')) do
  paused[queue] = true
end

for i = 2, #ARGV, 3 do
  local list, id, message = namespace .. ':' .. ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if redis.call('hsetnx', list .. '.msgs', id, message) == 1 then
    redis.call(ARGV[1], list, id)
    new = new + 1
    wake = wake or not paused[ARGV[i]]
  end
end

if wake then
  redis.call('publish', namespace .. ':__wake_up__', new)
end
return new
