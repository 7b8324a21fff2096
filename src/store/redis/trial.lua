-- KEYS: a stream that is gone afterwards. It needs the rights, and the memory, of a publish.
redis.call('XADD', KEYS[1], '*', 'data', '')
return redis.call('DEL', KEYS[1])
