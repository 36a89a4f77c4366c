#!lua flags=allow-oom
-- discard(KEYS = {namespace}, ARGV = {queue, longest search, id, id, ...}) -> how many messages it deleted
--
-- Deletes waiting messages whose tasks wait no longer. A message that is deeper in the list than the longest search
-- stays: the worker that pulls it finds its task out of date.

local list, longest = KEYS[1] .. ':' .. ARGV[1], ARGV[2]
local deleted = 0

for i = 3, #ARGV do
  if redis.call('lpos', list, ARGV[i], 'maxlen', longest) then
    redis.call('lrem', list, 1, ARGV[i])
    redis.call('hdel', list .. '.msgs', ARGV[i])
    deleted = deleted + 1
  end
end
return deleted
