-- ids(KEYS = {namespace}, ARGV = {queue, cursor}) -> {next cursor, {id, id, ...}}
--
-- Scans the queue's hash of messages and returns only their ids. HSCAN's own NOVALUES would do that, but the oldest
-- server that we support does not know it.

local page = redis.call('hscan', KEYS[1] .. ':' .. ARGV[1] .. '.msgs', ARGV[2], 'count', 1000)
local ids = {}
for i = 1, #page[2], 2 do
  ids[#ids + 1] = page[2][i]
end
return {page[1], ids}
