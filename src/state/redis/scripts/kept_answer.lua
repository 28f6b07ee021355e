-- The answer that is kept for a claim that stands, and for no earlier one.
--
-- KEYS     the claim, its answer
-- ARGV[1]  the time by a test's hand or '0'
local values = redis.call('MGET', KEYS[1], KEYS[2])
local claim, answer = values[1], values[2]
if not claim or not answer or string.sub(claim, 1, 16) ~= string.sub(answer, 1, 16) then return false end
local since, till, busy = struct.unpack('<ddB', claim, 41)
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1e6 + time[2]
end
if busy == 0 and now >= till then return false end
return string.sub(answer, 17)
