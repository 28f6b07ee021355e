-- The bans that changed after a place in the list, oldest change first.
--
-- KEYS[1]  the list of changes
-- ARGV     the place, how many at most, what the keys of bans begin with
-- Answers  of each: its subject, its place, the ban or '' where there is none any more
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local out = {}
for i = 1, #found, 2 do
  out[#out + 1] = found[i]
  out[#out + 1] = string.format('%.0f', found[i + 1])
  out[#out + 1] = redis.call('GET', ARGV[3] .. found[i]) or ''
end
return out
