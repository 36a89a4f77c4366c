-- place(KEYS = {namespace}, ARGV = {longest search, id, queue, queue, ...}; the message is in the last of the queues)
--   -> nil when Redis does not have it, or
--      {how many wait before it in its lane, or nil; in its lane; in all queues before;
--       the name of the limit that its lane waits for, or ''; in how many milliseconds its lane may go on by its rate}

-- lanes.lua

local id, queue = ARGV[2], ARGV[#ARGV]
local message = redis.call('hget', namespace .. ':' .. queue .. '.msgs', id)
if not message then
  return nil
end
local lane = lane_of(message)

-- How many wait before it in its lane, and in its lane.
local function place()
  local list, head, has_more = list_of(queue, lane), head_of(queue, lane)
  local in_list, first = has_more and redis.call('llen', list) or 0, head and 1 or 0
  if id == head then
    return 0, first + in_list
  end
  local before = has_more and redis.call('lpos', list, id, 'maxlen', ARGV[1])
  return before and first + before, first + in_list
end

local function waiting(queue)
  return redis.call('llen', namespace .. ':' .. queue) + laned(queue)
end
local before = 0
for i = 3, #ARGV - 1 do
  before = before + waiting(ARGV[i])
end

local operation, group = split(lane)
local name, wait = '', 0
local held = redis.call('zscore', namespace .. ':__until__', queue .. '|' .. lane)
local time = redis.call('time')
for _, limit in ipairs(limits_of(operation) or {}) do
  local key = key_of(limit, group)
  if limit.max_running and redis.call('scard', namespace .. ':__slots__.' .. key) >= limit.max_running then
    name = limit.name
  elseif held and limit.count and name == '' then
    name = limit.name
    wait = math.max(0, math.floor(held / 1000 - (time[1] * 1000 + time[2] / 1000)))
  end
end
local ahead, length = place()
return {ahead, length, before, name, wait}
