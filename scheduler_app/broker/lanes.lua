-- Inserted at the top of the scripts that put messages somewhere, or take them.
--
-- A message that has neither a group nor a limit waits in its queue's plain list. Any other waits in a lane of its queue:
-- one for each group, and for each limited operation within it. A lane's name is "operation|group"; the operation is
-- empty unless it is limited. The plain list counts as a lane with an empty name. What a message is about is read from
-- the message, so a change of the limits has to move nothing: pull.lua moves what it meets in a wrong lane.
--
-- Many groups have one message each. So a lane has a list only if it has more than one message. A hash names the first
-- one. A list counts only while the hash says so: when the hash is lost, its lists stay, and nobody reads them any more.
--
--   $queue.heads         hash of the lanes that have messages: the id of the first one, and a "+" if there are more; no
--                        id ends in "+". The empty field says how many ids all of their lists have, if there are any
--   $queue.lane.$lane    list of the ids after the first one
--   $queue.ring          list of the lanes that may have their turn, the next one first; if there is any, the plain list too
--   __limits__           hash of each operation's limits, as JSON; the empty field shows that Redis has not lost it
--   __slots__.$key       set of the ids that count as running; $key is the limit's name, or "name|group"
--   __counted__          set of the ids whose slots were counted from the table, after a loss or a change
--   __used__             set of the keys that have slots in use
--   __waiters__.$key     list of the lanes that wait for a slot, each as "queue|lane"; they are in no ring
--   __held_up__          set of the keys that have waiters
--   __rate__.$key        when the bucket of a rate will be full, in microseconds
--   __until__            sorted set of the lanes held by a rate, each as "queue|lane", by the time of their next turn

local namespace = KEYS[1]
local limited, limits -- how many operations are limited, and the limits of those that were looked at
local paused, woken = nil, {} -- woken: the lanes, as "queue|lane", whose turn has come without a message
local FORWARD = 100 -- lanes of paused queues that a wake-up passes over

local PART = 1000 -- values that one command is given: Lua's stack is bounded
local LOST = -2 ^ 50 -- in place of a number that is not known; below zero whatever is added

local function read_limits()
  limited, limits = redis.call('hlen', namespace .. ':__limits__') - 1, {} -- -1: Redis has lost them
end
read_limits()

local function limits_of(operation)
  if limited < 1 or not operation or operation == '' then
    return nil
  end
  if limits[operation] == nil then
    local text = redis.call('hget', namespace .. ':__limits__', operation)
    limits[operation] = text and cjson.decode(text) or false
  end
  return limits[operation] or nil
end

local function split(name)
  return string.match(name, '^([^|]*)|(.*)$')
end

local function lane_of(message)
  local group = string.match(message, '"group":"([^"]*)"')
  local operation = limited > 0 and string.match(message, '"actor_name":"([^"]*)"') or ''
  if not limits_of(operation) then
    operation = ''
  end
  if operation == '' and not group then
    return ''
  end
  return operation .. '|' .. (group or '')
end

local function list_of(queue, lane)
  local list = namespace .. ':' .. queue
  return lane == '' and list or list .. '.lane.' .. lane
end

local function is_paused(queue)
  if not paused then
    paused = {}
    for _, name in ipairs(redis.call('smembers', namespace .. ':__paused__')) do
      paused[name] = true
    end
  end
  return paused[queue]
end

-- The command says where in the ring the lane joins.
local function join(queue, lane, command)
  local ring = namespace .. ':' .. queue .. '.ring'
  if redis.call(command .. 'x', ring, lane) == 0 then
    redis.call('rpush', ring, '')
    redis.call(command, ring, lane)
  end
end

local function heads_of(queue)
  return namespace .. ':' .. queue .. '.heads'
end

-- So many ids more are in the lists of the queue's lanes.
local function count_listed(queue, change)
  if change ~= 0 and redis.call('hincrby', heads_of(queue), '', change) == 0 then
    redis.call('hdel', heads_of(queue), '')
  end
end

-- After the loss of a list. Then relist.lua counts anew.
local function forget_listed(queue)
  redis.call('hset', heads_of(queue), '', LOST)
end

-- How many messages wait in the queue's lanes.
local function laned(queue)
  local listed = redis.call('hget', heads_of(queue), '')
  return redis.call('hlen', heads_of(queue)) + (listed and math.max(0, listed) - 1 or 0)
end

-- Of a lane's value in the hash: the id of the first message, and whether the list has others.
local function parse(value)
  if value and string.sub(value, -1) == '+' then
    return string.sub(value, 1, -2), true
  end
  return value or nil, false
end

-- The same of a lane. All of the plain list is in its list.
local function head_of(queue, lane)
  if lane == '' then
    return nil, true
  end
  return parse(redis.call('hget', heads_of(queue), lane))
end

local function has_list(queue, lane)
  return redis.call('exists', list_of(queue, lane)) == 1
end

-- The lane has messages already, the first one is `head`.
local function put_beside(queue, lane, id, command, head, has_more)
  local list = list_of(queue, lane)
  if command == 'lpush' then
    head, id = id, head
  end
  if command == 'lpush' or not has_more then
    redis.call('hset', heads_of(queue), lane, head .. '+')
  end
  local length = redis.call(command, list, id)
  count_listed(queue, 1)
  if length > 1 and not has_more then -- the list is from before the hash was lost
    redis.call('del', list)
    redis.call(command, list, id)
  elseif length == 1 and has_more then -- the list was lost
    forget_listed(queue)
  end
end

-- The command says at which end of its lane the message goes in.
local function put(queue, id, message, command)
  local lane = lane_of(message)
  if lane == '' then
    redis.call(command, list_of(queue, lane), id)
    return
  end
  local head, has_more = head_of(queue, lane)
  if head then
    put_beside(queue, lane, id, command, head, has_more)
  else
    redis.call('hset', heads_of(queue), lane, id)
    join(queue, lane, 'rpush')
  end
end

local function in_any(sets, id)
  for _, set in ipairs(sets) do
    if redis.call('sismember', set, id) == 1 then
      return true
    end
  end
end

local function key_of(limit, group)
  return limit.per == 'group' and limit.name .. '|' .. group or limit.name
end

local function many(command, key, values)
  for first = 1, #values, PART do
    redis.call(command, key, unpack(values, first, math.min(first + PART - 1, #values)))
  end
end

local function last_first(values, first)
  local turned = {}
  for i = #values, first, -1 do
    turned[#turned + 1] = values[i]
  end
  return turned
end

local function is_awaited(key)
  return redis.call('exists', namespace .. ':__waiters__.' .. key) == 1
end

-- So many slots of the key are free: the lanes that have waited longest for one come next in their rings.
local function wake(key, slots)
  local passed = 0
  while slots > 0 and passed < FORWARD do
    local waiter = redis.call('lpop', namespace .. ':__waiters__.' .. key)
    if not waiter then
      break
    end
    local queue, lane = split(waiter)
    join(queue, lane, 'lpush')
    woken[waiter] = true
    if is_paused(queue) then
      passed = passed + 1
    else
      slots = slots - 1
    end
  end
  if not is_awaited(key) then
    redis.call('srem', namespace .. ':__held_up__', key)
  end
end

local counted -- whether there are any such slots
local function is_counted(id)
  if counted == nil then
    counted = redis.call('exists', namespace .. ':__counted__') == 1
  end
  return counted and redis.call('sismember', namespace .. ':__counted__', id) == 1
end

-- Of a slot that was counted from the table it is not known who has the message. It may run in one worker while another
-- finds it out of date. So only free.lua frees it, by what the table says.
local function free(key, ids)
  local slots, known = namespace .. ':__slots__.' .. key, {}
  for _, id in ipairs(ids) do
    known[#known + 1] = not is_counted(id) and id or nil
  end
  local freed = #known > 0 and redis.call('srem', slots, unpack(known)) or 0
  if freed > 0 then
    if redis.call('exists', slots) == 0 then
      redis.call('srem', namespace .. ':__used__', key)
    end
    wake(key, freed)
  end
end

-- Microseconds from one task to the next, by the limit's rate.
local function interval(limit)
  return limit.seconds * 1000000 / limit.count
end

-- Gives back what a message has taken from the buckets of its rates: it was pulled, and no attempt of it has begun.
local function refund(message)
  local operation, group = split(lane_of(message))
  for _, limit in ipairs(limits_of(operation) or {}) do
    local bucket = namespace .. ':__rate__.' .. key_of(limit, group)
    local full = limit.count and redis.call('get', bucket)
    if full then
      redis.call('set', bucket, string.format('%.0f', full - interval(limit)), 'keepttl')
      -- Of the lanes that wait for a time, those of another limit only look once more.
      for _, waiter in ipairs(redis.call('zrange', namespace .. ':__until__', 0, 9)) do
        redis.call('zadd', namespace .. ':__until__', 0, waiter)
      end
    end
  end
end

-- Frees the slots of messages that no worker has any more; PART of them at most. Doing it twice does nothing.
local function release(ids, messages)
  local by_key = {}
  for i, id in ipairs(ids) do
    local operation, group = split(messages[i] and lane_of(messages[i]) or '')
    for _, limit in ipairs(limits_of(operation) or {}) do
      if limit.max_running then
        local key = key_of(limit, group)
        by_key[key] = by_key[key] or {}
        table.insert(by_key[key], id)
      end
    end
  end
  for key, its_ids in pairs(by_key) do
    free(key, its_ids)
  end
end
