-- Closes an admission: claims stay or are free again, holds become what was spent. Done once, however often it is asked.
--
-- KEYS[1]  the record that admit.lua wrote
-- ARGV[1]  numbers: the time by a test's hand or 0, whether claims stay, whether holds are spent, then what was spent of
--          each hold (-1: as much as was held)
-- ARGV[2]  16 bytes of the admission's id
local ACCOUNT = '<ddddddddd'
-- For which an admit that comes after its own end is still recognised; it is refused by its deadline long before.
local TOMBSTONE = 60000
local read, write, sub, max_of = struct.unpack, struct.pack, string.sub, math.max

local hand, stays, spends, at = read('<ddd', ARGV[1])
local record = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], '', 'PX', TOMBSTONE)
if not record or record == '' then return 0 end

local now = hand
if hand == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1e6 + time[2]
end

local taken = cmsgpack.unpack(record)
for _, key in ipairs(taken[1]) do
  local claim = redis.call('GET', key)
  if claim and sub(claim, 1, 16) == ARGV[2] then
    local since, till = read('<dd', claim, 41)
    if stays == 1 and till > now then
      local keep = hand > 0 and 3600000 or math.floor((till - now) / 1000) + 2
      redis.call('SET', key, sub(claim, 1, 56) .. '\0', 'PX', keep)
      redis.call('PEXPIRE', key .. ':a', keep)
    else
      redis.call('DEL', key, key .. ':a')
    end
  end
end
for i, hold in ipairs(taken[2]) do
  local value = redis.call('GET', hold[1])
  if value then
    local start, held, spent = hold[2], hold[3], 0
    if spends == 1 then
      spent = read('<d', ARGV[1], at + 8 * (i - 1))
      if spent < 0 then spent = held end
    end
    local page = {read(ACCOUNT, value)}
    if page[6] == start and page[1] ~= start then
      -- What the earlier period overshoots by it, this one has to bear.
      local debt = max_of(0, page[8] - page[7])
      page[9] = max_of(0, page[9] - held)
      page[8] = page[8] + spent
      page[4] = page[4] + max_of(0, page[8] - page[7]) - debt
    else
      -- Longer ago than is remembered: it is spent all the same.
      if page[1] == start then page[5] = max_of(0, page[5] - held) end
      page[4] = page[4] + spent
    end
    redis.call('SET', hold[1], write(ACCOUNT, unpack(page, 1, 9)), 'KEEPTTL')
  end
end
return 1
