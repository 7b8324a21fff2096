-- KEYS: the log of a session, the stream that tells of its changes, and the sets of all
-- sessions and of those of its address, by the times when they expire. ARGV: what to do, the
-- session, milliseconds that it is kept, and the entry; to begin, also how many sessions there
-- may be, and how many of the address; to shorten, also the log as it was read, and all entries
-- instead of one. Returns the place of the change; nil if there is no such log; 0 if nothing
-- was done.
local MOST = 2000

local what, id, kept = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local log, changes = KEYS[1], KEYS[2]

if what == 'begin' then
  for i = 3, 4 do redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', string.format('%.0f', now)) end
  if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[5]) then return 0 end
  if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[6]) then return 0 end
elseif redis.call('EXISTS', log) == 0 then
  return false
end

if what == 'end' then
  redis.call('DEL', log)
  for i = 3, 4 do redis.call('ZREM', KEYS[i], id) end
elseif what == 'shorten' then
  if table.concat(redis.call('LRANGE', log, 0, -1), '\n') ~= ARGV[5] then return 0 end
  redis.call('DEL', log)
  for i = 6, #ARGV do redis.call('RPUSH', log, ARGV[i]) end
else
  if what == 'append' and redis.call('LLEN', log) >= MOST then return -1 end
  redis.call('RPUSH', log, ARGV[4])
end
if what ~= 'end' then
  redis.call('PEXPIRE', log, kept)
  for i = 3, 4 do
    redis.call('ZADD', KEYS[i], string.format('%.0f', now + kept), id)
    redis.call('PEXPIRE', KEYS[i], kept)
  end
end
if what == 'note' then return 0 end
local told = redis.call('XADD', changes, 'MAXLEN', 1, '*', 'event', '0')
redis.call('PEXPIRE', changes, kept)
return cursor_of(told)
