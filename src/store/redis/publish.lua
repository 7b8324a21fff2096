-- KEYS: the topic's stream; but for a cluster, the set of topics by the times of their last
-- events, and the stream that tells of each publish. ARGV: messages, bytes and microseconds
-- that it keeps, the topic, and the message and its extra, if the event has them. Returns the
-- event's cursor.

-- How many topics the set has, and publishes the stream. A topic whose time is further ahead
-- of the clock than this does not move the others.
local TOPICS, TOLD, AHEAD = 100000, 64, 3600000000

local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
local before, added = nil, nil
if not info.err then
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then before = info[i + 1] end
    if info[i] == 'entries-added' then added = info[i + 1] end
  end
elseif not string.find(info.err, 'no such key') then
  return info
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now >= LARGEST then return redis.error_reply('ERR the clock stands beyond the year 2242') end

-- Redis adds nothing before the last id. A stream that has been given one beyond
-- LARGEST would take no event that a subscriber could receive. It is created again from those
-- of its entries that are events. `added` records that there were more.
if before and cursor_of(before) >= LARGEST then
  local most = string.format('%.0f', 2 * tonumber(ARGV[1]) + 2)
  local events = redis.call('XREVRANGE', KEYS[1], END, '-', 'COUNT', most)
  redis.call('DEL', KEYS[1])
  before = nil
  for i = #events, 1, -1 do
    local id, fields = events[i][1], events[i][2]
    -- unpack() takes some 8,000 values.
    if cursor_of(id) < LARGEST and #fields < 4000 then
      before = redis.call('XADD', KEYS[1], id, unpack(fields))
    end
  end
  if before then redis.pcall('XSETID', KEYS[1], before, 'ENTRIESADDED', added) end
end

local at = now
if before then at = math.max(at, cursor_of(before) + 1) end
if KEYS[2] then
  local most = string.format('%.0f', now + AHEAD)
  local newest = redis.call('ZREVRANGEBYSCORE', KEYS[2], most, '-inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  at = math.max(at, tonumber(newest or '0') + 1)
end
if at % 1000000 == 0 then at = at + 1 end
local entry = {}
if not before then entry = {'born', at} end
if ARGV[5] then
  table.insert(entry, 'data')
  table.insert(entry, ARGV[5])
  if ARGV[6] then
    table.insert(entry, 'extra')
    table.insert(entry, ARGV[6])
  end
else
  -- Only the last of several events without a message stays, with the beginning
  -- of the row: a subscriber at a cursor within the row has missed nothing.
  local row = at
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  if last and field_of(last[2], 'event') then
    row = row_of(last[2], cursor_of(last[1]))
    local born = tonumber(field_of(last[2], 'born') or '')
    if born then entry = {'born', born} end
    redis.call('XDEL', KEYS[1], last[1])
  end
  table.insert(entry, 'event')
  table.insert(entry, row)
end
for i, value in ipairs(entry) do
  if type(value) == 'number' then entry[i] = string.format('%.0f', value) end
end
redis.call('XADD', KEYS[1], id_of(at), unpack(entry))
if KEYS[2] then
  redis.call('ZADD', KEYS[2], string.format('%.0f', at), ARGV[4])
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -TOPICS - 1)
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', TOLD, '*', 'topic', ARGV[4])
end

-- One entry beyond the limit stays. A subscriber at its cursor has missed nothing.
if before then
  local keep, bytes, age = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
  redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', string.format('%.0f', 2 * keep + 2))
  local oldest = math.min(now - 2 * age, cursor_of(before))
  if oldest > 0 then redis.call('XTRIM', KEYS[1], 'MINID', '~', id_of(oldest)) end
  if redis.call('MEMORY', 'USAGE', KEYS[1]) > 2 * bytes + 8192 then
    local size, from, edge = 0, '+', nil
    repeat
      local part = redis.call('XREVRANGE', KEYS[1], from, '-', 'COUNT', 64)
      for _, entry in ipairs(part) do
        if size > bytes and entry[1] ~= id_of(at) then edge = entry[1] break end
        local found = field_of(entry[2], 'data')
        if found then size = size + #found + #(field_of(entry[2], 'extra') or '') + 42 end
        from = '(' .. entry[1]
      end
    until edge or #part == 0
    if edge then redis.call('XTRIM', KEYS[1], 'MINID', '=', edge) end
  end
end
return at
