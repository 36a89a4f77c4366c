-- Inserted in pull.lua. A view has what was taken out of a lane, or of the plain list, and not used yet.
--
-- It begins with the lane's first message, which the hash names. Of its list some ids are taken out at a time.

local SOME = 8 -- ids that are taken out of a list at first. Of a lane's list one goes before: most lanes have one turn.

local function read_texts(level, view)
  view.texts = view.reads and #view.ids > 0 and redis.call('hmget', level.list .. '.msgs', unpack(view.ids))
end

-- more: whether the list may have ids. is_sure: whether it must have some, because the hash says so.
-- The messages of a lane whose text must be read may belong to another lane, since the limits have changed.
local function open(level, lane, operation, its_limits)
  local view = level.opened[lane]
  if not view then
    local is_right = its_limits or (limited == 0 and (operation or '') == '')
    local size, head, more = SOME, nil, true
    if lane ~= '' then
      size, head, more = 1, parse(level.heads[lane])
    end
    view = {lane = lane, ids = {head}, next = 1, size = size, more = more, is_sure = lane ~= '' and more, reads = not is_right}
    read_texts(level, view)
    level.opened[lane] = view
  end
  return view
end

local function is_empty(level, view)
  if view.next > #view.ids and view.more then
    view.ids, view.next = redis.call('lpop', list_of(level.queue, view.lane), view.size) or {}, 1
    level.listed = level.listed - (view.lane ~= '' and #view.ids or 0)
    level.is_lost = level.is_lost or (view.is_sure and #view.ids == 0)
    view.more, view.is_sure = #view.ids == view.size, false
    view.size = math.min(math.max(SOME, 4 * view.size), PART)
    read_texts(level, view)
  end
  return view.next > #view.ids
end

-- What was not used goes back to where it was. The first id of what is left is the lane's head.
local function close_all(level)
  local heads, gone = {}, {}
  for lane, view in pairs(level.opened) do
    local first = view.next
    if lane ~= '' and is_empty(level, view) then
      gone[#gone + 1] = lane
    elseif lane ~= '' then
      first = view.next + 1
      local has_more = first <= #view.ids or (view.more and has_list(level.queue, lane))
      heads[#heads + 1] = lane
      heads[#heads + 1] = view.ids[view.next] .. (has_more and '+' or '')
    end
    if first <= #view.ids then
      many('lpush', list_of(level.queue, lane), last_first(view.ids, first))
      level.listed = level.listed + (lane ~= '' and #view.ids - first + 1 or 0)
    end
  end
  many('hset', level.hash, heads)
  many('hdel', level.hash, gone)
  count_listed(level.queue, level.listed)
  if level.is_lost then
    forget_listed(level.queue)
  end
end
