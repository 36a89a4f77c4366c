-- Inserted in pull.lua. It says whether the limits of a lane have room for one more of its messages.
--
-- What is taken from a limit is counted here; pull.lua writes it at the end.

local CLOSED = 100 * 1000 -- microseconds until it is tried again whether the slots are counted
local LATE = 100 * 1000 -- microseconds, see when_full

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

-- What is in use of the limits, by key: {key, used (slots), full (when the bucket will be full), ids (those that it takes)}
local uses = {}
local function use_of(limit, group)
  local key = key_of(limit, group)
  if not uses[key] then
    local use = {key = key, limit = limit, ids = {}}
    if limit.max_running then
      use.used = redis.call('scard', namespace .. ':__slots__.' .. key)
    end
    if limit.count then
      use.each = interval(limit)
      use.whole = limit.burst * use.each
      use.late = math.min(LATE, use.each / 2)
      use.full = tonumber(redis.call('get', namespace .. ':__rate__.' .. key) or state.since + use.whole)
    end
    uses[key] = use
  end
  return uses[key]
end

-- When the bucket will be full once one more was taken. A worker comes a little late for each. If the bucket began anew
-- each time, less would begin than the rate allows. So up to `late` is made up for. That is less than the time of one,
-- and so it is still true that no more than count + burst begin in any time of that length.
local function when_full(use)
  return math.max(math.min(use.full, now + use.whole), now - use.late) + use.each
end

local function has_little(use)
  local is_used = use.used and 2 * use.used >= use.limit.max_running
  return is_used or (use.full and 2 * (math.max(when_full(use), now + use.each) - now) > use.whole)
end

local rouse = {} -- keys that have room for others
local function offer(all)
  for _, use in ipairs(all) do
    if not use.none and is_awaited(use.key) then
      rouse[#rouse + 1] = use.key
    end
  end
end

-- What is in use of all limits of the lane; nil if one has no room. Then the lane waits outside of the ring.
local function room(level, lane, its_limits, group)
  local waiter = level.queue .. '|' .. lane
  woken[waiter] = nil
  if not is_open() then
    redis.call('zadd', held, now + CLOSED, waiter)
    return nil
  end
  local all, full, later = {}, nil, now
  for i, limit in ipairs(its_limits) do
    local use = use_of(limit, group)
    all[i] = use
    use.none = use.used and use.used >= limit.max_running
    full = full or use.none and use
    later = use.full and math.max(later, math.ceil(when_full(use) - use.whole)) or later
  end
  if not full and later <= now then
    return all
  end
  if full then
    redis.call('rpush', namespace .. ':__waiters__.' .. full.key, waiter)
    redis.call('sadd', namespace .. ':__held_up__', full.key)
  else
    redis.call('zadd', held, later, waiter)
  end
  offer(all) -- it may have been woken for a slot that it does not take
  return nil
end

-- 1, or 0 if the message has its slot already: it was counted from the table.
local function needs(use, id)
  local slots = namespace .. ':__slots__.' .. use.key
  return is_counted(id) and redis.call('sismember', slots, id) == 1 and 0 or 1
end

local function occupy(id, all)
  for _, use in ipairs(all) do
    use.used = use.used and use.used + needs(use, id)
    use.full = use.full and when_full(use)
  end
end

-- It does not run after all.
local function vacate(id, all)
  for _, use in ipairs(all) do
    use.used = use.used and use.used - needs(use, id)
    use.full = use.full and use.full - use.each
    use.none = false
  end
  offer(all)
end
