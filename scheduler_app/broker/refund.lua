#!lua flags=allow-oom
-- refund(KEYS = {namespace}, ARGV = {queue, id, queue, id, ...})
--
-- Gives back what messages have taken from rates, which were pulled and do not begin.

-- lanes.lua

for i = 1, #ARGV, 2 do
  local message = redis.call('hget', namespace .. ':' .. ARGV[i] .. '.msgs', ARGV[i + 1])
  if message then
    refund(message)
  end
end
