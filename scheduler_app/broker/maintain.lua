#!lua flags=allow-oom
-- maintain(KEYS = {namespace}, ARGV = {heartbeat timeout, dead letter's life, queue, queue, ...}; both in milliseconds)
--   -> 1, or 0 when it skipped a round
--
-- Gives back what dead workers had pulled, with its slots, and deletes old dead letters, as Dramatiq's own maintenance would. All
-- times are by Redis' clock. It takes at most `part` entries of each set, and leaves the rest to the next round.
--
-- After a freeze of Redis or of the caller, or after Redis' clock was set, every heartbeat may look old. Then it skips
-- a round, in which the workers renew them. The time of the last round is in $namespace:__maintained__.

-- lanes.lua

local timeout, life = tonumber(ARGV[1]), tonumber(ARGV[2])
local heartbeats, maintained = namespace .. ':__heartbeats__', namespace .. ':__maintained__'
local part = 1000
local forgotten = 3600 * 1000 -- for so long a dead worker stays known: it may have pulled from queues that are not ours
local time = redis.call('time')
local now = time[1] * 1000 + math.floor(time[2] / 1000) -- milliseconds

-- A heartbeat in the future would look fresh for too long. It is from before Redis' clock was set back, or was written
-- by another clock.
for _, worker in ipairs(redis.call('zrangebyscore', heartbeats, string.format('(%d', now), '+inf')) do
  redis.call('zadd', heartbeats, now, worker)
end

local last = tonumber(redis.call('get', maintained) or 0)
redis.call('set', maintained, now)
if now < last or now - last > timeout / 2 then
  return 0
end

local back = 0
for _, worker in ipairs(redis.call('zrangebyscore', heartbeats, 0, now - timeout)) do
  for i = 3, #ARGV do
    local messages = namespace .. ':' .. ARGV[i] .. '.msgs'
    for _, id in ipairs(redis.call('spop', namespace .. ':__acks__.' .. worker .. '.' .. ARGV[i], part)) do
      local message = redis.call('hget', messages, id)
      if message then
        release({id}, {message})
        put(ARGV[i], id, message, 'rpush')
        back = back + 1
      end
    end
  end
end
if back > 0 then
  redis.call('publish', namespace .. ':__wake_up__', back)
end
redis.call('zremrangebyscore', heartbeats, 0, now - timeout - forgotten)

for i = 3, #ARGV do
  local dead = namespace .. ':' .. ARGV[i] .. '.XQ'
  local old = redis.call('zrangebyscore', dead, 0, now - life, 'limit', 0, part)
  if #old > 0 then
    redis.call('zrem', dead, unpack(old))
    redis.call('hdel', dead .. '.msgs', unpack(old))
  end
end
return 1
