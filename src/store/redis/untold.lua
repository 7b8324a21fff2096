-- KEYS: a topic's stream, and the set of topics by the times of their last events. ARGV: the
-- topic. Returns the cursor of the last event, unless a publisher has noted it in the set.
local last = redis.call('XREVRANGE', KEYS[1], END, '-', 'COUNT', 1)[1]
local at = last and cursor_of(last[1]) or 0
local noted = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or '0')
return at > noted and at
