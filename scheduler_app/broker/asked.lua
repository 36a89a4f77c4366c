-- asked(KEYS = {namespace}) -> {task id, seconds, task id, seconds, ...}
--
-- The tasks for whose end somebody waits, and for how much longer.

local now = tonumber(redis.call('time')[1])
local waited = redis.call('zrangebyscore', KEYS[1] .. ':__waited__', now + 1, '+inf', 'withscores')
for i = 2, #waited, 2 do
  waited[i] = waited[i] - now
end
return waited
