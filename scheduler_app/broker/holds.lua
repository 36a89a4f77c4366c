-- holds(KEYS = {namespace}, ARGV = {queue, id, queue, id, ...}) -> per pair 1 if its message waits or runs, else 0

local held = {}
for i = 1, #ARGV, 2 do
  held[#held + 1] = redis.call('hexists', KEYS[1] .. ':' .. ARGV[i] .. '.msgs', ARGV[i + 1])
end
return held
