#!lua flags=allow-oom
-- relist(KEYS = {namespace}, ARGV = {process, queue, id, id, ...})
--   -> {how many ids it put back where they wait, how many are still in no list}
--
-- Every message of a queue should be in one of its lists or in one worker's ack set. The difference is the number of lost ones.
-- It puts back no more than that.
--
-- A message that moved between two lists during the search may be among the ids. Messages come into a list at its ends,
-- so the script looks there once more, while nothing moves.
--
-- Two processes would put back the same messages. So the first one that finds something missing gets a lease, and the
-- others are told that nothing is missing.

-- lanes.lua

local process, queue = ARGV[1], ARGV[2]
local list, acks, lease = namespace .. ':' .. queue, {}, namespace .. ':__relisting__'
local lease_time = 10000 -- milliseconds

local holder = redis.call('get', lease)
if holder and holder ~= process then
  return {0, 0}
end

-- A list or a ring may be lost by itself.
local heads, ring = heads_of(queue), list .. '.ring'
local listed = tonumber(redis.call('hget', heads, '') or nil)
local count = redis.call('hlen', heads) - (listed and 1 or 0)
local is_lost = count > 0 and redis.call('llen', ring) <= count -- it should have the plain list too
is_lost = is_lost and redis.call('exists', namespace .. ':__held_up__', namespace .. ':__until__') == 0
if is_lost then
  redis.call('del', ring)
end
if is_lost or (listed and (listed < 0 or count == 0)) then
  redis.call('hdel', heads, '')
  local sum, values = 0, redis.call('hgetall', heads)
  for i = 1, #values, 2 do
    local _, has_more = parse(values[i + 1])
    sum = sum + (has_more and redis.call('llen', list_of(queue, values[i])) or 0)
    if is_lost then
      join(queue, values[i], 'rpush')
    end
  end
  count_listed(queue, sum)
end

local missing = redis.call('hlen', list .. '.msgs') - redis.call('llen', list) - laned(queue)
for i, worker in ipairs(redis.call('zrange', namespace .. ':__heartbeats__', 0, -1)) do
  acks[i] = namespace .. ':__acks__.' .. worker .. '.' .. queue
  missing = missing - redis.call('scard', acks[i])
end
if missing <= 0 then
  return {0, 0}
end
redis.call('set', lease, process, 'px', lease_time)

-- The ids near both ends of the lane.
local function ends_of(lane)
  local head, has_more = head_of(queue, lane)
  local ids = {head}
  for _, first in ipairs(has_more and {0, -PART} or {}) do
    for _, waiting in ipairs(redis.call('lrange', list_of(queue, lane), first, first + PART - 1)) do
      ids[#ids + 1] = waiting
    end
  end
  return ids
end

local near = {} -- by lane
local function is_near_an_end(lane, id)
  if not near[lane] then
    near[lane] = {}
    for _, waiting in ipairs(ends_of(lane)) do
      near[lane][waiting] = true
    end
  end
  return near[lane][id]
end

local function has_moved(id, message)
  return in_any(acks, id) or is_near_an_end('', id) or is_near_an_end(lane_of(message), id)
end

local back = 0
for i = 3, #ARGV do
  local message = back < missing and redis.call('hget', list .. '.msgs', ARGV[i])
  if message and not has_moved(ARGV[i], message) then
    put(queue, ARGV[i], message, 'rpush')
    back = back + 1
  end
end
if back > 0 then
  redis.call('publish', namespace .. ':__wake_up__', back)
end
return {back, missing - back}
