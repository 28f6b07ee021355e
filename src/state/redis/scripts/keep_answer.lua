-- Keeps an answer as long as the claim that it is for.
--
-- KEYS     the claim, its answer
-- ARGV     the time by a test's hand or '0', the answer
local claim = redis.call('GET', KEYS[1])
if not claim then return 0 end
local since, till, busy = struct.unpack('<ddB', claim, 41)
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1e6 + time[2]
end
local left = redis.call('PTTL', KEYS[1])
if left <= 0 or (busy == 0 and now >= till) then return 0 end
redis.call('SET', KEYS[2], string.sub(claim, 1, 16) .. ARGV[2], 'PX', left)
return 1
