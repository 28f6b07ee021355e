-- One transaction: all that a demand asks for, or nothing.
--
-- KEYS     counters, accounts, claims; last the record of the admission, if it will have to be settled
-- ARGV[1]  numbers, each a double, which holds microseconds exactly until the year 2255: as `read` below takes them
-- ARGV[2]  of a demand with claims: 16 bytes of the admission's id, 8 of the gate, then 16 for the content of each claim
-- ARGV[3]  the key of the gates that live
-- Answers  numbers, packed alike: a word, the time, and what belongs to the word
--
-- A counter is five numbers: the sum of its draws, where in it the oldest that counts begins, where the newest ends, and
-- the time and weight of that; then each draw's time and weight, oldest first. Only a small one is ever read whole: long
-- strings are dear to scripts. An account is nine numbers: start,
-- end, maximum, spent and held of its newest period; start (-1: none), maximum, spent and held of the one before. A claim
-- is the id (16), the content (16), the gate (8), since when, until when, and whether its request is under way (1).
local GRANTED, CLAIMED, LIMITED, SPENT, LATE, OTHER_PERIOD, SETTLED = 0, 1, 2, 3, 4, 5, 6
local LEASE = 30e6
-- Bytes of a counter's numbers; what is read of it at once, eight draws beside them; and draws that have left, of which a
-- counter is rid when they outweigh those that have not.
local HEAD, GLANCE, DEAD = 40, 168, 2048
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

local values = {}
local call = redis.call
for i = 1, counters do values[i] = call('GETRANGE', KEYS[i], 0, GLANCE - 1) end
if #KEYS > counters then
  local others = call('MGET', unpack(KEYS, counters + 1))
  for i = 1, #KEYS - counters do values[counters + i] = others[i] end
end
local record = recorded == 1 and values[#KEYS]
if record == '' then return write('<dd', SETTLED, now) end
-- Granted already: it only learns how things stand.
local again = record and true or false

-- How long a key is kept whose content matters for `span` more.
local function keep(span)
  if hand > 0 then return 3600000 end
  return floor(span / 1000) + 2
end

local pages, wanted, hold_at
if holds > 0 then pages, wanted, hold_at = {}, {}, {} end
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

-- Of each counter: the sum of its draws, where they begin and end, when the newest was made and its weight, and what is
-- wanted of it.
local SUM, FIRST, LAST, NEWEST, DRAWN, WANTED = 1, 2, 3, 4, 5, 6
local tallies = {}

-- A piece of a counter with the draw at `from` in it, and where that piece begins.
local function piece(k, from)
  if from + 16 <= GLANCE then return values[k], 0 end
  return call('GETRANGE', KEYS[k], from, from + 127), from
end

-- Until `excess` has left a window.
local function frees(k, excess, length)
  local from, last, freed = tallies[k][FIRST], tallies[k][LAST], 0
  while from < last do
    local bytes, start = piece(k, from)
    while from < last and from + 16 - start <= #bytes do
      local time, weight = read('<dd', bytes, from - start + 1)
      freed, from = freed + weight, from + 16
      if freed >= excess then return time + length - now end
    end
  end
  return length
end

local draws_at = at
local longest, refusal
for i = 1, cells do
  local k, weight, max, length
  k, weight, max, length, at = read('<dddd', numbers, at)
  at = at + 8
  local tally = tallies[k]
  if not tally then
    local value = values[k]
    if value == '' then
      tally = {0, HEAD, HEAD, false, 0, 0}
    else
      local sum, from, size, newest, drawn = read('<ddddd', value)
      if newest + length <= now then
        values[k] = ''
        tally = {0, HEAD, HEAD, false, 0, 0}
      else
        -- What has left the window.
        local bytes, start = piece(k, from)
        local time, gone = read('<dd', bytes, from - start + 1)
        while time + length <= now do
          sum, from = sum - gone, from + 16
          if from + 16 - start > #bytes then bytes, start = piece(k, from) end
          time, gone = read('<dd', bytes, from - start + 1)
        end
        tally = {sum, from, size, newest, drawn, 0}
      end
    end
    tallies[k] = tally
  end
  if weight > 0 and not again then
    local need, sum = tally[WANTED] + weight, tally[SUM]
    tally[WANTED] = need
    if need > max - sum then
      -- More than the window ever holds waits for ever.
      local wait = need > max and -1 or frees(k, sum + need - max, length)
      if not longest or (longest >= 0 and (wait < 0 or wait > longest)) then
        longest = wait
        local whole = wait
        if wait < 0 then whole = tally[NEWEST] and max_of(0, tally[NEWEST] + length - now) or 0 end
        refusal = write('<dddddd', LIMITED, now, i - 1, sum, whole, wait)
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
local answer = write('<dd', GRANTED, now)
at = draws_at
for i = 1, cells do
  local k, weight, max, length, grain
  k, weight, max, length, grain, at = read('<ddddd', numbers, at)
  local tally = tallies[k]
  local total, newest = tally[SUM], tally[NEWEST]
  if weight > 0 and takes then
    local from, size, time, drawn = tally[FIRST], tally[LAST], now, weight
    if newest then
      -- A clock that was set back puts no draw before one that came earlier.
      if newest > now then time = newest end
      if newest == time or (grain > 1 and floor(newest / grain) == floor(time / grain)) then
        drawn, size = drawn + tally[DRAWN], size - 16
      end
    end
    total = total + weight
    local key, mark = KEYS[k], write('<dd', time, drawn)
    if size + 16 <= GLANCE then
      -- All of it is at hand.
      local last = size - from + HEAD + 16
      local value = write('<ddddd', total, HEAD, last, time, drawn) .. sub(values[k], from + 1, size) .. mark
      call('SET', key, value, 'PX', keep(time + length - now))
      values[k], from, size = value, HEAD, last
    elseif from - HEAD > DEAD and from - HEAD > size - from then
      local stays = call('GETRANGE', key, from, size - 1)
      size = HEAD + #stays + 16
      local value = write('<ddddd', total, HEAD, size, time, drawn) .. stays .. mark
      call('SET', key, value, 'PX', keep(time + 2 * length - now))
      values[k] = value
      from = HEAD
    else
      call('SETRANGE', key, size, mark)
      size = size + 16
      call('SETRANGE', key, 0, write('<ddddd', total, from, size, time, drawn))
      -- Once a window is enough, if it is for two.
      if size <= GLANCE + 16 or floor(newest / length) ~= floor(time / length) then
        call('PEXPIRE', key, keep(time + 2 * length - now))
      end
    end
    tally[SUM], tally[FIRST], tally[LAST], tally[NEWEST], tally[DRAWN] = total, from, size, time, drawn
    newest = time
  end
  answer = answer .. write('<dd', total, newest and max_of(0, newest + length - now) or 0)
end
if looks == 1 then
  for i = 1, holds do
    local page = pages[hold_at[i][1]]
    answer = answer .. write('<ddd', page[4], page[5], max_of(0, page[2] - now))
  end
end
if not takes then return answer end

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
  for k, page in pairs(pages or {}) do
    redis.call('SET', KEYS[counters + k], write(ACCOUNT, unpack(page)), 'PX', keep(matters(page, now)))
  end
  redis.call('SET', KEYS[#KEYS], cmsgpack.pack({taken_claims, taken_holds}), 'PX', keep(DAY))
end
return answer
