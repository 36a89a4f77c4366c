#!lua flags=allow-oom
-- pauses(KEYS = {namespace}, ARGV = {queue, queue, ...})
--
-- Makes $namespace:__paused__ name exactly these queues as paused, for pull.lua. The set also has an empty name, so that
-- it exists while no queue is paused: without it, pull.lua knows that the copy is lost.
--
-- Workers that have fetched ahead give back what they fetched when a queue is paused. They look again when one is resumed.

local key, channel = KEYS[1] .. ':__paused__', KEYS[1] .. ':__wake_up__'
local before, paused, resumed = {}, false, false

for _, queue in ipairs(redis.call('smembers', key)) do
  before[queue] = true
end
if not before[''] then
  redis.call('sadd', key, '')
end
for _, queue in ipairs(ARGV) do
  if not before[queue] then
    redis.call('sadd', key, queue)
    paused = true
  end
  before[queue] = nil
end
for queue in pairs(before) do
  if queue ~= '' then
    redis.call('srem', key, queue)
    resumed = true
  end
end

if paused then
  redis.call('publish', channel, 'paused')
end
if resumed then
  redis.call('publish', channel, 'resumed')
end
