-- One transaction: all that a demand asks for, or nothing.
--
-- KEYS     counters, accounts, claims; last the record of the admission, if it will have to be settled
-- ARGV[1]  numbers, each a double, which holds microseconds exactly until the year 2255: as `read` below takes them
-- ARGV[2]  of a demand with claims: 16 bytes of the admission's id, 8 of the gate, then 16 for the content of each claim
-- ARGV[3]  the key of the gates that live
-- Answers  numbers, packed alike: a word, the time, and what belongs to the word
--
-- A counter is the sum of its draws, then each draw's time and weight, oldest first. An account is nine numbers: start,
-- end, maximum, spent and held of its newest period; start (-1: none), maximum, spent and held of the one before. A claim
-- is the id (16), the content (16), the gate (8), since when, until when, and whether its request is under way (1).
local GRANTED, CLAIMED, LIMITED, SPENT, LATE, OTHER_PERIOD, SETTLED = 0, 1, 2, 3, 4, 5, 6
local LEASE = 30e6
local read, write, sub, floor, max_of = struct.unpack, struct.pack, string.sub, math.floor, math.max

local numbers = ARGV[1]
local hand, deadline, looks, counters, accounts, claims, recorded, holds, cells, at = read('<ddddddddd', numbers)

-- By the server's clock, so that all gates agree; by a test's, if it moves one by hand.
local now = hand
if hand == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1e6 + time[2]
end
if deadline > 0 and now > deadline then return write('<dd', LATE, now) end

local values = redis.call('MGET', unpack(KEYS))
local record = recorded == 1 and values[#KEYS]
if record == '' then return write('<dd', SETTLED, now) end
-- Granted already: it only learns how things stand.
local again = record and true or false

-- How long a key is kept whose content matters for `span` more.
local function keep(span)
  if hand > 0 then return 3600000 end
  return floor(span / 1000) + 2
end

local pages, wanted, hold_at = {}, {}, {}
for i = 1, holds do
  local k, amount, max, start, stop
  k, amount, max, start, stop, at = read('<ddddd', numbers, at)
  if now < start or now >= stop then return write('<dd', OTHER_PERIOD, now) end
  if pages[k] then
    pages[k][3] = max
  else
    pages[k] = account(values[counters + k], start, stop, max)
  end
  hold_at[i] = {k, amount}
end

if not again then
  for i = 1, claims do
    local claim = values[counters + accounts + i]
    if claim then
      local since, till, busy = read('<ddB', claim, 41)
      if busy == 1 and hand == 0 then
        -- Whose gate has died is not under way any more.
        local beat = redis.call('ZSCORE', ARGV[3], sub(claim, 33, 40))
        if not beat or beat + LEASE < now then busy, till = 0, 0 end
      end
      if busy == 1 or now < till then
        local same = sub(claim, 17, 32) == sub(ARGV[2], 9 + 16 * i, 24 + 16 * i) and 1 or 0
        return write('<ddddddd', CLAIMED, now, i - 1, busy, same, max_of(0, now - since), max_of(0, till - now))
      end
    end
  end
end
local claims_at = at
at = at + 8 * claims

-- Draws that are still in the window, and their sum.
local bodies, used = {}, {}
local function load(k, length)
  local value = values[k]
  if not value then
    bodies[k], used[k] = '', 0
    return
  end
  local sum, from = read('<d', value)
  local size = #value
  while from < size do
    local time, weight, next = read('<dd', value, from)
    if time + length > now then break end
    sum, from = sum - weight, next
  end
  bodies[k], used[k] = sub(value, from), sum
end

-- Until a window is whole again if nothing more is drawn.
local function whole(body, length)
  if body == '' then return 0 end
  return max_of(0, read('<d', body, #body - 15) + length - now)
end

-- Until `excess` has left a window.
local function frees(body, excess, length)
  local from, freed, time, weight = 1, 0
  while from < #body do
    time, weight, from = read('<dd', body, from)
    freed = freed + weight
    if freed >= excess then return time + length - now end
  end
  return length
end

local draws_at = at
local needs, longest, refusal = {}, nil, nil
for i = 1, cells do
  local k, weight, max, length
  k, weight, max, length, at = read('<dddd', numbers, at)
  at = at + 8
  if not bodies[k] then load(k, length) end
  if weight > 0 and not again then
    local need = (needs[k] or 0) + weight
    needs[k] = need
    if need > max - used[k] then
      -- More than the window ever holds waits for ever.
      local wait = need > max and -1 or frees(bodies[k], used[k] + need - max, length)
      if not longest or (longest >= 0 and (wait < 0 or wait > longest)) then
        longest = wait
        refusal = write('<dddddd', LIMITED, now, i - 1, used[k], wait < 0 and whole(bodies[k], length) or wait, wait)
      end
    end
  end
end
if refusal then return refusal end

if not again then
  local latest
  for i = 1, holds do
    local k, amount = hold_at[i][1], hold_at[i][2]
    if amount > 0 then
      wanted[k] = (wanted[k] or 0) + amount
      local page = pages[k]
      if wanted[k] > max_of(0, page[3] - page[4] - page[5]) and (not latest or page[2] > latest) then
        latest = page[2]
        refusal = write('<dddddd', SPENT, now, i - 1, page[4], page[5], max_of(0, page[2] - now))
      end
    end
  end
end
if refusal then return refusal end

-- Nothing stands in the way: take all.
local takes = looks == 0 and not again
local out, changed, size = {GRANTED, now}, {}, 2
at = draws_at
for i = 1, cells do
  local k, weight, max, length, grain
  k, weight, max, length, grain, at = read('<ddddd', numbers, at)
  local body = bodies[k]
  if weight > 0 and takes then
    local time, joined = now, 0
    if body ~= '' then
      local newest, drawn = read('<dd', body, #body - 15)
      -- A clock that was set back puts no draw before one that came earlier.
      time = max_of(now, newest)
      if newest == time or (grain > 1 and floor(newest / grain) == floor(time / grain)) then
        body, joined = sub(body, 1, -17), drawn
      end
    end
    body = body .. write('<dd', time, weight + joined)
    bodies[k], used[k], changed[k] = body, used[k] + weight, time + length
  end
  out[size + 1], out[size + 2] = used[k], whole(body, length)
  size = size + 2
end
if looks == 1 then
  for i = 1, holds do
    local page = pages[hold_at[i][1]]
    out[size + 1], out[size + 2], out[size + 3] = page[4], page[5], max_of(0, page[2] - now)
    size = size + 3
  end
end
local answer = write('<' .. string.rep('d', size), unpack(out))
if not takes then return answer end

for k, till in pairs(changed) do
  redis.call('SET', KEYS[k], write('<d', used[k]) .. bodies[k], 'PX', keep(till - now))
end
if recorded == 1 then
  local taken_claims, taken_holds = {}, {}
  for i = 1, claims do
    local span = read('<d', numbers, claims_at + 8 * (i - 1))
    local key = KEYS[counters + accounts + i]
    local claim = sub(ARGV[2], 1, 16) .. sub(ARGV[2], 9 + 16 * i, 24 + 16 * i) .. sub(ARGV[2], 17, 24)
    redis.call('SET', key, claim .. write('<ddB', now, now + span, 1), 'PX', keep(span + DAY))
    taken_claims[i] = key
  end
  for i = 1, holds do
    local k, amount = hold_at[i][1], hold_at[i][2]
    pages[k][5] = pages[k][5] + amount
    taken_holds[i] = {KEYS[counters + k], pages[k][1], amount}
  end
  for k, page in pairs(pages) do
    redis.call('SET', KEYS[counters + k], write(ACCOUNT, unpack(page)), 'PX', keep(matters(page, now)))
  end
  redis.call('SET', KEYS[#KEYS], cmsgpack.pack({taken_claims, taken_holds}), 'PX', keep(DAY))
end
return answer
