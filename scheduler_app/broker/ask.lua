#!lua flags=allow-oom
-- ask(KEYS = {namespace}, ARGV = {seconds, task id, task id, ...})
--
-- Somebody waits for the end of these tasks. For so many seconds whoever ends one of them tells, see tell.lua.
-- $namespace:__waited__ has the ids, each with the time until which it counts, by Redis' clock.

local waited = KEYS[1] .. ':__waited__'
local now = tonumber(redis.call('time')[1])

redis.call('zremrangebyscore', waited, '-inf', now)
for i = 2, #ARGV do
  redis.call('zadd', waited, 'GT', now + ARGV[1], ARGV[i])
end
redis.call('publish', KEYS[1] .. ':__asked__', table.concat(ARGV, ' '))
