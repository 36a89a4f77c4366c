#!lua flags=allow-oom
-- limits(KEYS = {namespace}, ARGV = {epoch, digest, operations, operation, limits, ..., id, operation, group, ...})
--   -> 1, or 0 when Redis has a later epoch, or this one already: what has begun since would not count
--
-- Makes these limits count, from slots that are counted anew: the ids of all attempts that run. It opens the lanes of
-- limited operations for pull.lua until the epoch is over, or Redis is restarted. A bucket that Redis has lost is empty.
-- Lanes that waited by the limits of before have their turn by the sweep, see sweep.lua.

-- lanes.lua

local epoch, digest, operations = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local first_running = 4 + 2 * operations
local state, key = namespace .. ':__limits_state__', namespace .. ':__limits__'
local run = string.match(redis.call('info', 'server'), 'run_id:(%x+)')
local time = redis.call('time')

local before = redis.call('hmget', state, 'epoch', 'run', 'since')
local known, lost = tonumber(before[1] or -1), before[2] ~= run or redis.call('hexists', key, '') == 0
if known > epoch or (known == epoch and not lost) then
  return 0
end
local since = before[2] == run and before[3] or string.format('%.0f', time[1] * 1000000 + time[2])
redis.call('hset', state, 'epoch', epoch, 'run', run, 'digest', digest, 'since', since)

redis.call('del', key)
redis.call('hset', key, '', '')
for i = 4, first_running - 1, 2 do
  redis.call('hset', key, ARGV[i], ARGV[i + 1])
end
read_limits()

for _, slots in ipairs(redis.call('smembers', namespace .. ':__used__')) do
  redis.call('del', namespace .. ':__slots__.' .. slots)
end
redis.call('del', namespace .. ':__used__', namespace .. ':__counted__')
for i = first_running, #ARGV, 3 do
  redis.call('sadd', namespace .. ':__counted__', ARGV[i])
  for _, limit in ipairs(limits_of(ARGV[i + 1]) or {}) do
    if limit.max_running then
      local slots = key_of(limit, ARGV[i + 2])
      redis.call('sadd', namespace .. ':__slots__.' .. slots, ARGV[i])
      redis.call('sadd', namespace .. ':__used__', slots)
    end
  end
end

for _, lane in ipairs(redis.call('zrange', namespace .. ':__until__', 0, 9999)) do
  redis.call('zadd', namespace .. ':__until__', 0, lane)
end
redis.call('publish', namespace .. ':__wake_up__', 1)
return 1
