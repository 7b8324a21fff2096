-- KEYS: the set of topics by the times of their last events, and the stream that tells of
-- each publish. Returns the number of topics, and of publishes: all entries that the stream
-- ever had.
local publishes = 0
local info = redis.pcall('XINFO', 'STREAM', KEYS[2])
for i = 1, #info, 2 do
  if info[i] == 'entries-added' then publishes = info[i + 1] end
end
return {redis.call('ZCARD', KEYS[1]), publishes}
