-- publish(KEYS = {namespace}, ARGV = {command, queue, id, message, queue, id, message, ...}) -> how many were new
--
-- Puts messages into Dramatiq's keys and wakes the workers, unless the queue is paused. The command is rpush, or lpush for
-- those that come before all that wait in their lane: the last one of them is then the first. A message that is still
-- there is left alone. Its id stays in $namespace:$queue.msgs from now until the message is acknowledged, also while a
-- worker has it.

-- lanes.lua

local new, wakes = 0, false

for i = 2, #ARGV, 3 do
  local queue, id, message = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if redis.call('hsetnx', namespace .. ':' .. queue .. '.msgs', id, message) == 1 then
    put(queue, id, message, ARGV[1])
    new = new + 1
    wakes = wakes or not is_paused(queue)
  end
end

if wakes then
  redis.call('publish', namespace .. ':__wake_up__', new)
end
return new
