#!lua flags=allow-oom
-- pull(KEYS = {namespace}, ARGV = {worker, count, levels, queue, weight, ..., queue, id, queue, id, ...})
--   -> {queue, id, queue, id, ...} of at most count messages
--      or nil when messages wait and it is not known which queues are paused
--
-- First it renews the worker's heartbeat, by Redis' clock. Then it acknowledges the messages whose ids follow the
-- levels, exactly as Dramatiq's own ack would.
--
-- It chooses among the queues by weighted fair (stride) scheduling. Each queue has a pass, which grows by 1 / weight
-- with each message taken. The queue with the lowest pass is next; the first named wins a tie. The passes are kept in
-- $namespace:__fair__, so that the weights hold for all workers together.
--
-- "now" is the pass of the message taken last. A queue that was empty comes back with the pass "now", so it has earned
-- no credit. A queue never waits for more than one stride, whatever its pass was, because the weights may have changed.
--
-- A paused queue counts as empty. $namespace:__paused__ names the paused ones, see pauses.lua. Redis may have lost it:
-- then nothing is pulled until it is back.
--
-- A pulled message goes to the worker's ack sets, exactly as Dramatiq's own fetch would put it there. An id without a
-- message is a sign of a loss. Then our marker is deleted, so that resync looks at once for what is missing.

local namespace, worker, count, queues = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local first_queue = 4 -- in ARGV; each queue is followed by its weight
local first_done = first_queue + 2 * queues -- each queue is followed by a message's id
local state = namespace .. ':__fair__'
local time = redis.call('time')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

redis.call('zadd', namespace .. ':__heartbeats__', now_ms, worker)

for i = first_done, #ARGV, 2 do
  if redis.call('srem', namespace .. ':__acks__.' .. worker .. '.' .. ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('hdel', namespace .. ':' .. ARGV[i] .. '.msgs', ARGV[i + 1])
  end
end

local levels, fields, any = {}, {'now'}, false
local paused = redis.call('smembers', namespace .. ':__paused__')
for i, queue in ipairs(paused) do
  paused[queue] = true
end
for i = first_queue, first_done - 1, 2 do
  local queue = ARGV[i]
  local waiting = redis.call('llen', namespace .. ':' .. queue)
  any = any or waiting > 0
  if waiting > 0 and not paused[queue] then
    levels[#levels + 1] = {queue = queue, waiting = waiting, stride = 1 / tonumber(ARGV[i + 1])}
    fields[#fields + 1] = queue
  end
end
if any and #paused == 0 then
  return nil
end
if #levels == 0 then
  return {}
end

local saved = redis.call('hmget', state, unpack(fields))
local now = tonumber(saved[1] or 0)
for i, level in ipairs(levels) do
  level.pass = math.min(math.max(tonumber(saved[i + 1] or 0), now), now + level.stride)
end

local function choose()
  local best
  for _, level in ipairs(levels) do
    if level.waiting > 0 and (not best or level.pass < best.pass) then
      best = level
    end
  end
  return best
end

local pulled = {}
local level = choose()
while level and #pulled < 2 * count do
  local list = namespace .. ':' .. level.queue
  local id = redis.call('lpop', list)
  level.waiting = level.waiting - 1
  if redis.call('hexists', list .. '.msgs', id) == 1 then
    redis.call('sadd', namespace .. ':__acks__.' .. worker .. '.' .. level.queue, id)
    pulled[#pulled + 1] = level.queue
    pulled[#pulled + 1] = id
    now = level.pass
    level.pass = now + level.stride
  else
    redis.call('del', namespace .. ':__marker__')
  end
  level = choose()
end

local passes = {'now', string.format('%.17g', now)}
for _, changed in ipairs(levels) do
  passes[#passes + 1] = changed.queue
  passes[#passes + 1] = string.format('%.17g', changed.pass)
end
redis.call('hset', state, unpack(passes))
return pulled
