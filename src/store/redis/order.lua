-- KEYS: the set of topics by the times of their last events, and the stream that tells
-- of each publish. Returns the time of the last event of all, or 0, and the last id of the
-- stream.
local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
local told = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
return {string.format('%.0f', tonumber(newest or '0')), told and told[1] or '0-0'}
