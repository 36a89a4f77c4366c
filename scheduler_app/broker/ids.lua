-- ids(KEYS = {namespace}, ARGV = {queue, cursor}) -> {next cursor, {id, id, ...}}
--
-- HSCAN over the queue's messages without the messages: NOVALUES is younger than the oldest server that we support.

local page = redis.call('hscan', KEYS[1] .. ':' .. ARGV[1] .. '.msgs', ARGV[2], 'count', 1000)
local ids = {}
for i = 1, #page[2], 2 do
  ids[#ids + 1] = page[2][i]
end
return {page[1], ids}
