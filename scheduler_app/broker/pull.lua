#!lua flags=allow-oom
-- pull(KEYS = {namespace}, ARGV = {worker, count, idle, levels, queue, weight, ..., queue, id, queue, id, ...})
--   -> {wait, epoch, limited, queue, id, queue, id, ...} of at most count messages
--      or nil when it is not known which queues are paused, or which operations are limited, and messages wait
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
-- Within a queue the lanes take turns, see lanes.lua. A message of a limited operation takes a slot in each of its limits,
-- or it waits. While a limit has little room, no more messages are taken than the worker has idle threads: a slot is not
-- to be held by what does not run. The first `limited` messages of the reply are limited ones. They may only be claimed
-- while the database has the same epoch. `wait` says in how many milliseconds to pull again, since a lane then has its next turn by its
-- rate, or messages were left for threads that are idle by then; -1 when there is no such reason.
--
-- A pulled message goes to the worker's ack sets, exactly as Dramatiq's own fetch would put it there. An id without a
-- message is a sign of a loss. Then our marker is deleted, so that resync looks at once for what is missing.

-- lanes.lua

local worker, count, idle, queues = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local first_queue = 5 -- in ARGV; each queue is followed by its weight
local first_done = first_queue + 2 * queues -- each queue is followed by a message's id
local fair, laned, held = namespace .. ':__fair__', namespace .. ':__laned__', namespace .. ':__until__'
local TRIES = 500 -- lanes that one pull looks at without taking anything
local MOVES = 500 -- messages that one pull moves to another lane
local CLOSED = 100 * 1000 -- microseconds until it is tried again whether the slots are counted
local time = redis.call('time')
local now = time[1] * 1000000 + time[2] -- microseconds

redis.call('zadd', namespace .. ':__heartbeats__', math.floor(now / 1000), worker)

for i = first_done, #ARGV, 2 do
  local messages, id = namespace .. ':' .. ARGV[i] .. '.msgs', ARGV[i + 1]
  if redis.call('srem', namespace .. ':__acks__.' .. worker .. '.' .. ARGV[i], id) == 1 then
    local message = limited > 0 and redis.call('hget', messages, id)
    if message then
      release(id, message)
    end
    redis.call('hdel', messages, id)
  end
end

local has_lanes = redis.call('exists', laned) == 1
if has_lanes then
  local due = redis.call('zrangebyscore', held, 0, now, 'limit', 0, TRIES)
  for i = #due, 1, -1 do
    local queue, lane = split(due[i])
    redis.call('zrem', held, due[i])
    join(queue, lane, 'lpush')
    woken[due[i]] = true
  end
end

local left = false -- there is more, for threads that are idle
local function done(pulled)
  local wait, next_turn = -1, has_lanes and redis.call('zrange', held, 0, 0, 'withscores') or {}
  if #next_turn > 0 then
    wait = math.max(0, math.ceil((tonumber(next_turn[2]) - now) / 1000))
  end
  pulled[1] = left and 0 or wait
  if next(woken) then -- perhaps in a queue of other workers, or more than this one takes
    redis.call('publish', namespace .. ':__wake_up__', 1)
  end
  return pulled
end

local levels, fields, any = {}, {'now'}, false
is_paused('')
for i = first_queue, first_done - 1, 2 do
  local queue = ARGV[i]
  local plain = redis.call('llen', namespace .. ':' .. queue)
  local ring = has_lanes and redis.call('llen', namespace .. ':' .. queue .. '.ring') or 0
  any = any or plain > 0 or ring > 1
  if (plain > 0 or ring > 1) and not paused[queue] then
    levels[#levels + 1] = {queue = queue, plain = plain, ring = ring, stride = 1 / tonumber(ARGV[i + 1])}
    fields[#fields + 1] = queue
  end
end
if any and (not next(paused) or limited < 0) then
  return nil
end
if #levels == 0 or count == 0 then
  return done({-1, 0, 0})
end

local saved = redis.call('hmget', fair, unpack(fields))
local pass = tonumber(saved[1] or 0)
for i, level in ipairs(levels) do
  level.pass = math.min(math.max(tonumber(saved[i + 1] or 0), pass), pass + level.stride)
end

local function choose()
  local best
  for _, level in ipairs(levels) do
    if not level.dry and (level.plain > 0 or level.ring > 1) and (not best or level.pass < best.pass) then
      best = level
    end
  end
  return best
end

-- Whether slots count, and since when. After a restart Redis may have an old state: then another run wrote it.
local state
local function is_open()
  if not state then
    local run, epoch, since = unpack(redis.call('hmget', namespace .. ':__limits_state__', 'run', 'epoch', 'since'))
    local this = string.match(redis.call('info', 'server'), 'run_id:(%x+)')
    state = {open = run == this, epoch = tonumber(epoch or 0), since = tonumber(since or now)}
  end
  return state.open
end

-- What a limit says about one more: {key, used, full (when the bucket will be full), ready (when there is room by rate)}
local function look(limit, group)
  local key = key_of(limit, group)
  local found = {key = key, ready = now}
  if limit.max_running then
    found.used = redis.call('scard', namespace .. ':__slots__.' .. key)
    found.none = found.used >= limit.max_running
    found.little = 2 * found.used >= limit.max_running
  end
  if limit.count then
    local each = interval(limit)
    local whole = limit.burst * each
    local full = tonumber(redis.call('get', namespace .. ':__rate__.' .. key) or state.since + whole)
    found.full = math.max(math.min(full, now + whole), now) + each
    found.ready = math.max(now, math.ceil(found.full - whole))
    found.little = found.little or 2 * (found.full - now) > whole
  end
  return found
end

local function leave_ring(level, lane)
  local ring = namespace .. ':' .. level.queue .. '.ring'
  redis.call('lrem', ring, -1, lane)
  if redis.call('llen', ring) == 1 then
    redis.call('del', ring)
  end
end

-- What all limits of the lane say; nil if one has no room. Then the lane waits outside of the ring.
local function room(level, lane, its_limits, group)
  local waiter = level.queue .. '|' .. lane
  woken[waiter] = nil
  if not is_open() then
    leave_ring(level, lane)
    redis.call('zadd', held, now + CLOSED, waiter)
    return nil
  end
  local all, full, later = {}, nil, nil
  for i, limit in ipairs(its_limits) do
    local found = look(limit, group)
    all[i] = found
    full = full or found.none and found
    later = math.max(later or now, found.ready)
  end
  if not full and later <= now then
    return all
  end
  leave_ring(level, lane)
  if full then
    redis.call('rpush', namespace .. ':__waiters__.' .. full.key, waiter)
    redis.call('sadd', namespace .. ':__held_up__', full.key)
  else
    redis.call('zadd', held, later, waiter)
  end
  for _, found in ipairs(all) do -- it may have been woken for a slot that it does not take
    if found ~= full and not found.none then
      wake(found.key)
    end
  end
  return nil
end

local function occupy(id, all)
  for _, found in ipairs(all) do
    if found.used then
      redis.call('sadd', namespace .. ':__slots__.' .. found.key, id)
      if found.used == 0 then
        redis.call('sadd', namespace .. ':__used__', found.key)
      end
    end
    if found.full then
      local life = math.ceil((found.full - now) / 1000) + 1
      redis.call('set', namespace .. ':__rate__.' .. found.key, string.format('%.0f', found.full), 'px', life)
    end
  end
end

local moves = 0
local function pop(level, lane, operation, its_limits)
  local is_surely_right = its_limits or (limited == 0 and (operation or '') == '')
  local list, messages = list_of(level.queue, lane), namespace .. ':' .. level.queue .. '.msgs'
  while moves < MOVES do
    local id = redis.call('lpop', list)
    if not id then
      return nil
    end
    if lane == '' then
      level.plain = level.plain - 1
    elseif redis.call('hincrby', laned, level.queue, -1) <= 0 then
      redis.call('hdel', laned, level.queue)
    end
    local message = redis.call(is_surely_right and 'hexists' or 'hget', messages, id)
    if message == 1 or (message and message ~= 0 and lane_of(message) == lane) then
      return id
    elseif message and message ~= 0 then
      put(level.queue, id, message, 'rpush')
      moves = moves + 1
    else
      redis.call('del', namespace .. ':__marker__')
    end
  end
end

local function leave(level, lane, is_lost)
  woken[level.queue .. '|' .. lane] = nil
  if redis.call('srem', namespace .. ':' .. level.queue .. '.lanes', lane) == 1 and is_lost then
    redis.call('hdel', laned, level.queue) -- it was said to have messages: they are counted anew, see relist.lua
  end
  leave_ring(level, lane)
end

-- The next message of a queue, and whether it is limited.
local tries, taken_idle = 0, 0
local function take(level)
  local ring = namespace .. ':' .. level.queue .. '.ring'
  local turns = level.ring + 1
  while turns > 0 and tries < TRIES and moves < MOVES do
    turns = turns - 1
    local before, lane = moves, level.ring > 1 and redis.call('lmove', ring, ring, 'left', 'right') or ''
    local operation, group = split(lane)
    local its_limits, all, little = limits_of(operation), nil, false
    if its_limits then
      all = room(level, lane, its_limits, group)
      for _, found in ipairs(all or {}) do
        little = little or found.little
      end
    end
    local id
    if all and little and taken_idle >= idle then
      left = true
    elseif all or not its_limits then
      id = pop(level, lane, operation, its_limits)
      if id and all then
        occupy(id, all)
        woken[level.queue .. '|' .. lane] = nil
        taken_idle = taken_idle + (little and 1 or 0)
      end
      if lane ~= '' and redis.call('exists', list_of(level.queue, lane)) == 0 then
        leave(level, lane, not id and moves == before)
        for _, found in ipairs(not id and all or {}) do
          wake(found.key)
        end
      end
    end
    if has_lanes or moves > 0 then
      level.ring = redis.call('llen', ring)
    end
    if id then
      return id, all
    end
    tries = tries + 1
    turns = moves > before and level.ring + 1 or turns
  end
  level.dry = true
end

local limited_ones, others = {}, {}
local level = choose()
while level and #limited_ones + #others < 2 * count do
  local id, is_limited = take(level)
  if id then
    redis.call('sadd', namespace .. ':__acks__.' .. worker .. '.' .. level.queue, id)
    local pulled = is_limited and limited_ones or others
    pulled[#pulled + 1] = level.queue
    pulled[#pulled + 1] = id
    pass = level.pass
    level.pass = pass + level.stride
  end
  level = choose()
end

local passes = {'now', string.format('%.17g', pass)}
for _, changed in ipairs(levels) do
  passes[#passes + 1] = changed.queue
  passes[#passes + 1] = string.format('%.17g', changed.pass)
end
redis.call('hset', fair, unpack(passes))

if tries >= TRIES or moves >= MOVES then
  woken.more = true
end
local pulled = {-1, state and state.epoch or 0, #limited_ones / 2}
for _, part in ipairs({limited_ones, others}) do
  for _, value in ipairs(part) do
    pulled[#pulled + 1] = value
  end
end
return done(pulled)
