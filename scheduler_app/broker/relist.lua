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
local laned, ring = namespace .. ':__laned__', list .. '.ring'
if redis.call('scard', list .. '.lanes') > 0 then
  local is_lost = redis.call('exists', ring, namespace .. ':__held_up__', namespace .. ':__until__') == 0
  if is_lost or redis.call('hexists', laned, queue) == 0 then
    local count = 0
    for _, lane in ipairs(redis.call('smembers', list .. '.lanes')) do
      count = count + redis.call('llen', list_of(queue, lane))
      if is_lost then
        join(queue, lane, 'rpush')
      end
    end
    redis.call('hset', laned, queue, count)
  end
end

local missing = redis.call('hlen', list .. '.msgs') - redis.call('llen', list)
missing = missing - (redis.call('hget', laned, queue) or 0)
for i, worker in ipairs(redis.call('zrange', namespace .. ':__heartbeats__', 0, -1)) do
  acks[i] = namespace .. ':__acks__.' .. worker .. '.' .. queue
  missing = missing - redis.call('scard', acks[i])
end
if missing <= 0 then
  return {0, 0}
end
redis.call('set', lease, process, 'px', lease_time)

local near = {} -- by lane, the ids near both ends of its list
local function is_near_an_end(lane, id)
  if not near[lane] then
    near[lane] = {}
    for _, first in ipairs({0, -PART}) do
      for _, waiting in ipairs(redis.call('lrange', list_of(queue, lane), first, first + PART - 1)) do
        near[lane][waiting] = true
      end
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
