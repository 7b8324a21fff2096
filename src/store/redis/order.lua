-- KEYS: the set of topics by the times of their last events, and the stream that tells
-- of each publish. Returns the time of the last event of all, or 0, and the last id of the
-- stream. A time of more than an hour ahead does not count, as for a publish: nothing would
-- be new until then.
local time = redis.call('TIME')
local most = string.format('%.0f', (time[1] + 3600) * 1000000)
local newest = redis.call('ZREVRANGEBYSCORE', KEYS[1], most, '-inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
local told = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
return {string.format('%.0f', tonumber(newest or '0')), told and told[1] or '0-0'}
