#!lua flags=allow-oom
-- free(KEYS = {namespace}, ARGV = {id, id, ...})
--
-- Frees the slots of attempts that run no more.

-- lanes.lua

redis.call('srem', namespace .. ':__counted__', unpack(ARGV))
for _, key in ipairs(redis.call('smembers', namespace .. ':__used__')) do
  free(key, ARGV)
end
if next(woken) then
  redis.call('publish', namespace .. ':__wake_up__', 1)
end
