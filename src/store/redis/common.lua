-- Cursors are microseconds, never a whole second. An entry's id is its
-- milliseconds and the microseconds within, as XADD with * would number 0, 1, 2;
-- in the first millisecond of a second the cursors are one later than the ids.
-- LARGEST is Cursor::LARGEST; entries of a later millisecond than END are no events.
local LARGEST, END = 8589934591999999, '8589934591999'

local function cursor_of(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  local at = ms * 1000 + math.min(seq, 1000000)
  if ms % 1000 == 0 then at = at + 1 end
  if at % 1000000 == 0 then at = at + 1 end
  return math.min(math.max(at, 100001), LARGEST)
end

local function id_of(at)
  local ms, seq = math.floor(at / 1000), at % 1000
  if ms % 1000 == 0 and seq > 0 then seq = seq - 1 end
  return string.format('%.0f-%.0f', ms, seq)
end

local function field_of(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end

-- Where the row of events without a message began that ends with this entry.
-- Others may write anything there.
local function row_of(fields, at)
  local row = tonumber(field_of(fields, 'event') or '')
  return row and row > 100000 and row <= at and row or at
end
