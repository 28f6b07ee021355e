-- Places or lifts a ban, and lists it among the changes for the other gates.
--
-- KEYS     the ban, the list of changes
-- ARGV     the subject, the ban or '' to lift it, for how many milliseconds that is remembered, whether what stands
--          there stays ('1'): a ban, or that one was lifted
-- Answers  the change's place in the list, and what stood there before
local before = redis.call('GET', KEYS[1])
if ARGV[4] == '1' and before then return {'0', before} end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
-- Places are times that never repeat nor go back, whatever the clock does.
local time = redis.call('TIME')
local place = time[1] * 1e6 + time[2]
local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
if last and tonumber(last) >= place then place = tonumber(last) + 1 end
place = string.format('%.0f', place)
redis.call('ZADD', KEYS[2], place, ARGV[1])
return {place, before}
