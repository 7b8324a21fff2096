-- KEYS: streams. ARGV: bytes that are left of the answer, messages, bytes and
-- microseconds that a stream keeps; then for each stream the mode of its reader
-- (now, latest, cursor, order, since) and its cursor. Returns for each its last id, that as a cursor,
-- whether there is a gap, whether there is more, and the messages; nothing for a
-- stream that is not there, nil for one that was not reached, and an error for one
-- that cannot be read. A message is its cursor, text and extra.
local left, keep = tonumber(ARGV[1]), tonumber(ARGV[2])
local bytes, age = tonumber(ARGV[3]), tonumber(ARGV[4])

-- Redis serves no other client meanwhile. After this number of entries the script
-- reads no further stream. An entry takes 2 to 3 microseconds.
local WORK = 500
local seen, is_untouched, is_spent = 0, true, false
local time = redis.call('TIME')
local oldest = time[1] * 1000000 + time[2] - age

-- From the end back to `since`: the messages that are kept, newest first,
-- whether some are kept no longer, and whether all that happened since is known.
-- At most `most` messages; events without one may lie between them. A place in the order of all
-- topics may lie between two events of this one.
local function walk(key, since, most, is_place)
  local found, count, size, from, width, born = {}, 0, 0, END, math.min(2 * most, 8), nil
  while true do
    local part = redis.call('XREVRANGE', key, from, '-', 'COUNT', width)
    seen = seen + #part
    for _, entry in ipairs(part) do
      local at, data = cursor_of(entry[1]), field_of(entry[2], 'data')
      if at <= since then return found, false, is_place or at == since end
      if row_of(entry[2], at) <= since then return found, false, true end
      if data then
        local extra = field_of(entry[2], 'extra') or ''
        count, size = count + 1, size + #data + #extra + 42
        if count > 1 and (count > keep or size > bytes or at < oldest) then
          return found, true, false
        end
        found[count] = {at, data, extra}
        if count == most then return found, false, true end
      end
      from, born = '(' .. entry[1], field_of(entry[2], 'born')
    end
    -- A reader without any event has the smallest cursor.
    if #part < width then return found, false, born and since == 100000, born end
    width = math.min(width * 4, 512)
  end
end

local function read(key, mode, since)
  local info = redis.pcall('XINFO', 'STREAM', key)
  if info.err and string.find(info.err, 'no such key') then return {} end
  if info.err then error(info.err, 0) end
  local state = {}
  for i = 1, #info, 2 do state[info[i]] = info[i + 1] end
  local id = state['last-generated-id']
  if id == '0-0' then return {} end
  local last = cursor_of(id)
  if last >= LARGEST then
    local newest = redis.call('XREVRANGE', key, END, '-', 'COUNT', 1)[1]
    last = newest and cursor_of(newest[1]) or 100000
  end
  local answer = {id, last, 0, 0}
  if mode == 'now' or mode == 'cursor' and since == last then return answer end

  local found, dropped, known, born = walk(key, since, mode == 'latest' and 1 or math.huge, mode == 'order')
  if mode == 'cursor' then
    local is_whole = since == 100000 and state['entries-added'] == state['length']
    local gap = dropped or since > last or not (known or is_whole)
    if gap then answer[3] = 1 end
    if gap and not dropped then found = walk(key, 0, math.huge) end
  end
  -- A topic that is younger than the position has no gap.
  if mode == 'order' and (dropped or not (known or born)) then answer[3] = 1 end
  -- The first message of all fits, whatever its size.
  for i = #found, 1, -1 do
    local size = #found[i][2] + #found[i][3] + 42
    is_spent = size > left and not is_untouched
    if is_spent and i == #found then return false end
    if is_spent then answer[4] = 1 break end
    left, is_untouched = left - size, false
    answer[#answer + 1] = found[i][1]
    answer[#answer + 1] = found[i][2]
    answer[#answer + 1] = found[i][3]
  end
  return answer
end

local answers = {}
for i, key in ipairs(KEYS) do
  is_spent = is_spent or seen >= WORK
  local is_read, answer = true, false
  if not is_spent then
    is_read, answer = pcall(read, key, ARGV[3 + 2 * i], tonumber(ARGV[4 + 2 * i]))
  end
  if not is_read then
    local why = type(answer) == 'table' and answer.err or answer
    answer = redis.error_reply(tostring(why))
  end
  answers[i] = answer
end
return answers
