-- Spends what a gate has spent on its own while it was cut off: once for each admission, however often it is asked.
--
-- KEYS     the admission's mark, accounts
-- ARGV[1]  numbers: the time by a test's hand or 0; for each account what was spent, its maximum, start and end of the
--          period
local MARK = 86400000

if not redis.call('SET', KEYS[1], '', 'NX', 'PX', MARK) then return 0 end
local now, at = struct.unpack('<d', ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1e6 + time[2]
end
for i = 2, #KEYS do
  local spent, max, start, stop
  spent, max, start, stop, at = struct.unpack('<dddd', ARGV[1], at)
  local page = account(redis.call('GET', KEYS[i]), start, stop, max)
  page[4] = page[4] + spent
  local keep = math.max(3600000, math.floor(matters(page, now) / 1000))
  redis.call('SET', KEYS[i], struct.pack(ACCOUNT, unpack(page)), 'PX', keep)
end
return 1
