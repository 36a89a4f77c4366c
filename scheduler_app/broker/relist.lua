#!lua flags=allow-oom
-- relist(KEYS = {namespace}, ARGV = {process, queue, id, id, ...})
--   -> {how many ids it put back into the queue's list, how many are still in no list}
--
-- Every message of a queue should be in its list or in one worker's ack set. The difference is the number of lost ones.
-- It puts back no more than that.
--
-- Two processes would put back the same messages. So the first one that finds something missing gets a lease, and the
-- others are told that nothing is missing.

local namespace, process, queue = KEYS[1], ARGV[1], ARGV[2]
local list, acks, lease = namespace .. ':' .. queue, {}, namespace .. ':__relisting__'
local lease_time = 10000 -- milliseconds

local holder = redis.call('get', lease)
if holder and holder ~= process then
  return {0, 0}
end

local missing = redis.call('hlen', list .. '.msgs') - redis.call('llen', list)
for i, worker in ipairs(redis.call('zrange', namespace .. ':__heartbeats__', 0, -1)) do
  acks[i] = namespace .. ':__acks__.' .. worker .. '.' .. queue
  missing = missing - redis.call('scard', acks[i])
end
if missing <= 0 then
  return {0, 0}
end
redis.call('set', lease, process, 'px', lease_time)

local function pulled(id)
  for _, set in ipairs(acks) do
    if redis.call('sismember', set, id) == 1 then
      return true
    end
  end
end

local put = 0
for i = 3, #ARGV do
  if put < missing and redis.call('hexists', list .. '.msgs', ARGV[i]) == 1 and not pulled(ARGV[i]) then
    redis.call('rpush', list, ARGV[i])
    put = put + 1
  end
end
if put > 0 then
  redis.call('publish', namespace .. ':__wake_up__', put)
end
return {put, missing - put}
