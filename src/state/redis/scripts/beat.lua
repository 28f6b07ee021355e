-- A gate's sign of life; also proof that the server takes writes. Answers what the gate has to know.
--
-- KEYS     the gates that live, the list of changes of bans, the epoch
-- ARGV     the gate, an epoch if there is none, what the keys of bans begin with
-- Answers  the time, how many gates live, the epoch, the place of the last change
local LIVES, FORGOTTEN, LISTED = 5e6, 60e6, 3600e6
local time = redis.call('TIME')
local now = time[1] * 1e6 + time[2]
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - FORGOTTEN))
redis.call('SET', KEYS[3], ARGV[2], 'NX')
-- A few at a time: changes that all have seen, of bans that are over.
for _, subject in ipairs(redis.call('ZRANDMEMBER', KEYS[2], 8)) do
  local place = redis.call('ZSCORE', KEYS[2], subject)
  if tonumber(place) + LISTED < now and redis.call('EXISTS', ARGV[3] .. subject) == 0 then
    redis.call('ZREM', KEYS[2], subject)
  end
end
local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
return {
  string.format('%.0f', now),
  redis.call('ZCOUNT', KEYS[1], string.format('%.0f', now - LIVES), '+inf'),
  redis.call('GET', KEYS[3]),
  last and string.format('%.0f', last) or '0',
}
