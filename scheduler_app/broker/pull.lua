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
-- while the database has the same epoch. `wait` says in how many milliseconds to pull again, since a lane then has its
-- next turn by its rate, or messages were left; -1 when there is no such reason.
--
-- It takes lanes out of their ring, and ids out of their lists, some at a time. What is left of them goes back at the end.
-- So many messages cost few commands. What it takes from a limit is counted here, and written at the end too.
--
-- A pulled message goes to the worker's ack sets, exactly as Dramatiq's own fetch would put it there. An id without a
-- message is a sign of a loss. Then our marker is deleted, so that resync looks at once for what is missing.

-- lanes.lua

local worker, count, idle, queues = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local first_queue = 5 -- in ARGV; each queue is followed by its weight
local first_done = first_queue + 2 * queues -- each queue is followed by a message's id
local fair, held = namespace .. ':__fair__', namespace .. ':__until__'
local TRIES = 500 -- lanes that one pull looks at without taking anything
local MOVES = 500 -- messages that one pull moves to another lane
local time = redis.call('time')
local now = time[1] * 1000000 + time[2] -- microseconds

redis.call('zadd', namespace .. ':__heartbeats__', math.floor(now / 1000), worker)

local settled = {}
for i = first_done, #ARGV, 2 do
  local ids = settled[ARGV[i]] or {}
  ids[#ids + 1] = ARGV[i + 1]
  settled[ARGV[i]] = ids
end
for queue, ids in pairs(settled) do
  local acks, mine = namespace .. ':__acks__.' .. worker .. '.' .. queue, {}
  for i, is_mine in ipairs(redis.call('smismember', acks, unpack(ids))) do
    mine[#mine + 1] = is_mine == 1 and ids[i] or nil
  end
  if #mine > 0 then
    local messages = namespace .. ':' .. queue .. '.msgs'
    redis.call('srem', acks, unpack(mine))
    if limited > 0 then
      release(mine, redis.call('hmget', messages, unpack(mine)))
    end
    redis.call('hdel', messages, unpack(mine))
  end
end

local hashes = {}
for i = first_queue, first_done - 1, 2 do
  hashes[#hashes + 1] = heads_of(ARGV[i])
end
local has_lanes = #hashes > 0 and redis.call('exists', unpack(hashes)) > 0
if has_lanes then
  local due = redis.call('zrangebyscore', held, 0, now, 'limit', 0, TRIES)
  for i = #due, 1, -1 do
    local queue, lane = split(due[i])
    redis.call('zrem', held, due[i])
    join(queue, lane, 'lpush')
    woken[due[i]] = true
  end
end

local left = false -- there is more
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

-- turns: how many lanes are in the ring, with the plain list. hand: those whose turn is next, taken out of the ring.
-- back: those that had it. heads: the values of lanes in the hash. opened: what was taken out of lanes.
local function read(level)
  level.plain = redis.call('llen', level.list)
  level.turns = has_lanes and redis.call('llen', level.ring) or 0
  level.hand, level.next, level.back = {}, 1, {}
  level.heads, level.opened, level.listed, level.is_lost = {}, {}, 0, false
end

local function has_any(level)
  return level.plain > 0 or level.turns > 1
end

local levels, fields, any = {}, {'now'}, false
is_paused('')
for i = first_queue, first_done - 1, 2 do
  local list = namespace .. ':' .. ARGV[i]
  local level = {queue = ARGV[i], list = list, ring = list .. '.ring', hash = heads_of(ARGV[i]), taken = {}}
  level.stride = 1 / tonumber(ARGV[i + 1])
  read(level)
  any = any or has_any(level)
  if has_any(level) and not paused[level.queue] then
    levels[#levels + 1] = level
    fields[#fields + 1] = level.queue
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
    if not level.dry and has_any(level) and (not best or level.pass < best.pass) then
      best = level
    end
  end
  return best
end

-- views.lua

-- Everything that was taken out and not used goes back to where it was.
local function put_back(level)
  close_all(level)
  if level.turns > 1 then
    many('lpush', level.ring, last_first(level.hand, level.next))
    many('rpush', level.ring, level.back)
  elseif level.turns == 1 then
    redis.call('del', level.ring)
  end
end

-- room.lua

-- The next lane. Those that had their turn come again when all others had it.
local taken = {} -- {level, id, all (as in room)}
local function next_lane(level)
  if level.turns == 0 then
    return ''
  end
  if level.next > #level.hand then
    level.hand, level.next = redis.call('lpop', level.ring, math.min(count - #taken, PART)), 1
    if level.hand then
      for i, value in ipairs(redis.call('hmget', level.hash, unpack(level.hand))) do
        level.heads[level.hand[i]] = value
      end
    else
      level.hand, level.back = level.back, {}
    end
  end
  level.next = level.next + 1
  return level.hand[level.next - 1]
end

local moves, moved = 0, {}
local function pop(level, view)
  while moves < MOVES and not is_empty(level, view) do
    local id, text = view.ids[view.next], view.texts and view.texts[view.next]
    view.next = view.next + 1
    if view.lane == '' then
      level.plain = level.plain - 1
    end
    if not text or lane_of(text) == view.lane then
      return id
    end
    moves = moves + 1
    moved[#moved + 1] = {level.queue, id, text}
  end
end

-- Moves what was met in a wrong lane, and wakes lanes. All must be in its place for that.
local function rearrange()
  for _, level in ipairs(levels) do
    put_back(level)
  end
  for _, message in ipairs(moved) do
    put(message[1], message[2], message[3], 'rpush')
  end
  for _, key in ipairs(rouse) do
    wake(key, 1)
  end
  moved, rouse, has_lanes = {}, {}, true
  for _, level in ipairs(levels) do
    read(level)
  end
end

local function has_had_turn(level, lane)
  if next(woken) then
    woken[level.queue .. '|' .. lane] = nil
  end
end

-- The next message of a queue, and what is in use of its limits, if it is limited.
local tries, taken_idle = 0, 0
local function take(level)
  local turns = math.max(1, level.turns)
  while turns > 0 and tries < TRIES and moves < MOVES do
    turns = turns - 1
    local lane = next_lane(level)
    local operation, group = split(lane)
    local its_limits, id, all, stays, little = limits_of(operation), nil, nil, true, false
    if its_limits then
      all = room(level, lane, its_limits, group)
      stays = all ~= nil
      for _, use in ipairs(all or {}) do
        little = little or has_little(use)
      end
    end
    if little and taken_idle >= idle then
      left = true
    elseif stays and (lane ~= '' or level.plain > 0) then
      local view = open(level, lane, operation, its_limits)
      id = pop(level, view)
      if id and all then
        occupy(id, all)
        has_had_turn(level, lane)
        taken_idle = taken_idle + (little and 1 or 0)
      end
      if lane ~= '' and is_empty(level, view) then
        stays = false
        has_had_turn(level, lane)
        offer(not id and all or {})
      end
    end
    if not stays then
      level.turns = level.turns - 1
    elseif level.turns > 0 then
      level.back[#level.back + 1] = lane
    end
    if #moved > 0 or #rouse > 0 then
      rearrange()
      turns = math.max(1, level.turns)
    end
    if id then
      return id, all
    end
    tries = tries + 1
  end
  level.dry = true
end

-- Those of them whose messages Redis has lost are dropped. It returns how many: others are taken in their place.
local function drop_lost(first)
  local by_level, kept = {}, {}
  for i = 1, first - 1 do
    kept[i] = taken[i]
  end
  for i = first, #taken do
    local some = by_level[taken[i].level] or {}
    some[#some + 1] = taken[i]
    by_level[taken[i].level] = some
  end
  for level, some in pairs(by_level) do
    for i = 0, #some - 1, PART do
      local ids = {}
      for j = 1, math.min(PART, #some - i) do
        ids[j] = some[i + j].id
      end
      for j, text in ipairs(redis.call('hmget', level.list .. '.msgs', unpack(ids))) do
        some[i + j].is_lost = not text
      end
    end
  end
  local lost = 0
  for i = first, #taken do
    if taken[i].is_lost then
      lost = lost + 1
      taken[i].level.dry = false
      vacate(taken[i].id, taken[i].all or {})
    else
      kept[#kept + 1] = taken[i]
    end
  end
  taken = kept
  return lost
end

local lost = 0
repeat
  local first, level = #taken + 1, choose()
  while level and #taken < count do
    local id, all = take(level)
    if id then
      taken[#taken + 1] = {level = level, id = id, all = all}
      pass = level.pass
      level.pass = pass + level.stride
    end
    level = choose()
  end
  local more = drop_lost(first)
  lost = lost + more
  if more > 0 then
    rearrange()
  end
until more == 0 or lost >= TRIES
if lost > 0 then
  redis.call('del', namespace .. ':__marker__')
  left = left or lost >= TRIES
end

local passes = {'now', string.format('%.17g', pass)}
for _, level in ipairs(levels) do
  put_back(level)
  passes[#passes + 1] = level.queue
  passes[#passes + 1] = string.format('%.17g', level.pass)
end
redis.call('hset', fair, unpack(passes))

local limited_ones, others = {}, {}
for _, one in ipairs(taken) do
  local pulled, ids = one.all and limited_ones or others, one.level.taken
  pulled[#pulled + 1] = one.level.queue
  pulled[#pulled + 1] = one.id
  ids[#ids + 1] = one.id
  for _, use in ipairs(one.all or {}) do
    use.ids[#use.ids + 1] = one.id
  end
end
for _, level in ipairs(levels) do
  many('sadd', namespace .. ':__acks__.' .. worker .. '.' .. level.queue, level.taken)
end
for key, use in pairs(uses) do
  if #use.ids > 0 and use.used then
    many('sadd', namespace .. ':__slots__.' .. key, use.ids)
    redis.call('sadd', namespace .. ':__used__', key)
  end
  if #use.ids > 0 and use.full then
    local life = math.ceil((use.full + use.late - now) / 1000) + 1
    redis.call('set', namespace .. ':__rate__.' .. key, string.format('%.0f', use.full), 'px', life)
  end
end

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
