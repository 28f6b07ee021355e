-- Before scripts that touch accounts.

local ACCOUNT, DAY = '<ddddddddd', 86400e6

-- The account in `value`, turned to the period that is asked for if that is a newer one.
local function account(value, start, stop, max)
  local page = value and {struct.unpack(ACCOUNT, value)} or {start, stop, max, 0, 0, -1, 0, 0, 0}
  if page[1] < start then
    -- What a period overshot, those that follow have to bear: also those in which nobody asked.
    local idle = math.floor((start - page[2]) / (stop - start) + 0.5)
    local debt = math.max(0, page[4] - page[3] * (1 + idle))
    page = {start, stop, max, debt, 0, page[1], page[3], page[4], page[5]}
  end
  page[3] = max
  return page
end

-- For how many microseconds an account matters: a debt has to be borne by the period that follows, if anybody asks in it.
local function matters(page, now)
  return page[2] + page[2] - page[1] - now + DAY
end

