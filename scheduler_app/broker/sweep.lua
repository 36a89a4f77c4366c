#!lua flags=allow-oom
-- sweep(KEYS = {namespace}, ARGV = {queue, queue, ...}) -> {how many lanes it woke, {id, id, ...}}
--
-- Wakes lanes that wait for a slot while there is one: of a paused queue, of a queue that no worker pulls from, or of a limit
-- that is gone or was raised. Returns the ids that have slots and are in no worker's ack set. Their tasks may still run:
-- Redis may have lost the ack set.

-- lanes.lua

local MOST = 1000 -- keys at a time
local names, found = {}, {}
for i, operation in ipairs(redis.call('hkeys', namespace .. ':__limits__')) do
  for _, limit in ipairs(limits_of(operation) or {}) do
    names[limit.name] = limit
  end
end

local count = 0
for _, key in ipairs(redis.call('srandmember', namespace .. ':__held_up__', MOST)) do
  local limit = names[string.match(key, '^[^|]*')]
  local room = MOST
  if limit and limit.max_running then
    room = limit.max_running - redis.call('scard', namespace .. ':__slots__.' .. key)
  end
  while room > 0 and count < MOST and is_awaited(key) do
    wake(key, 1)
    room = room - 1
    count = count + 1
  end
end
if count > 0 then
  redis.call('publish', namespace .. ':__wake_up__', count)
end

local acks = {}
for _, worker in ipairs(redis.call('zrange', namespace .. ':__heartbeats__', 0, -1)) do
  for _, queue in ipairs(ARGV) do
    acks[#acks + 1] = namespace .. ':__acks__.' .. worker .. '.' .. queue
  end
end
local seen = {}
for _, key in ipairs(redis.call('srandmember', namespace .. ':__used__', MOST)) do
  for _, id in ipairs(redis.call('srandmember', namespace .. ':__slots__.' .. key, MOST)) do
    if not seen[id] and #found < MOST and not in_any(acks, id) then
      found[#found + 1] = id
    end
    seen[id] = true
  end
end
return {count, found}
