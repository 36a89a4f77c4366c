#!lua flags=allow-oom
-- tell(KEYS = {namespace}, ARGV = {task id, task id, ...})
--
-- These tasks have ended. Who waits for one of them hears of it.

local waited = KEYS[1] .. ':__waited__'

redis.call('zremrangebyscore', waited, '-inf', redis.call('time')[1])
local ended = {}
for _, id in ipairs(ARGV) do
  if redis.call('zrem', waited, id) == 1 then
    ended[#ended + 1] = id
  end
end
if #ended > 0 then
  redis.call('publish', KEYS[1] .. ':__ended__', table.concat(ended, ' '))
end
