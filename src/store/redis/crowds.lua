-- KEYS: the hash with the text of each server about its subscribers, after its time in
-- milliseconds. ARGV: a server and its text; or nothing, to read. Returns 0, or the servers and
-- their texts of the last seconds.
local KEPT = 7000

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if #ARGV == 2 then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now) .. ':' .. ARGV[2])
  redis.call('PEXPIRE', KEYS[1], KEPT)
  return 0
end

local found = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local at, text = string.match(all[i + 1], '^(%d+):(.*)$')
  if at and now - tonumber(at) < KEPT then
    found[#found + 1] = all[i]
    found[#found + 1] = text
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return found
