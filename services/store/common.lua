-- What all scripts share. Amounts are strings of whole numbers and go to HINCRBY as they are:
-- numbers of Lua lose digits above 2^53, replies of Lua cut them.
local PARTS = {'energy_uj', 'cost_uusd', 'tokens', 'requests'}

local function text(number) return string.format('%.0f', number) end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- four amounts of ARGV from place `first` on
local function amounts_at(first)
  return {ARGV[first], ARGV[first + 1], ARGV[first + 2], ARGV[first + 3]}
end

local function book(account, column, sign, amounts)
  for k, part in ipairs(PARTS) do
    if amounts[k] ~= '0' then
      redis.call('HINCRBY', account, column .. ':' .. part, sign .. amounts[k])
    end
  end
end

local function read(key, column)
  local names = {}
  for k, part in ipairs(PARTS) do names[k] = column .. ':' .. part end
  local found = redis.call('HMGET', key, unpack(names))
  for k = 1, 4 do found[k] = found[k] or '0' end
  return found
end

local function write(key, column, amounts)
  for k, part in ipairs(PARTS) do redis.call('HSET', key, column .. ':' .. part, amounts[k]) end
end

local function accounts_of(request)
  local found = {}
  for account in string.gmatch(redis.call('HGET', request, 'accounts') or '', '[^ ]+') do
    found[#found + 1] = account
  end
  return found
end

-- requests whose lease is over are booked at their whole hold until the truth is known
local function sweep(prefix, leases, now, most, kept_ms)
  local over = redis.call('ZRANGEBYSCORE', leases, '-inf', text(now), 'LIMIT', 0, most)
  for _, id in ipairs(over) do
    local request = prefix .. 'r:' .. id
    local hold = read(request, 'hold')
    for _, account in ipairs(accounts_of(request)) do
      book(account, 'held', '-', hold)
      book(account, 'spent', '', hold)
    end
    write(request, 'booked', hold)
    redis.call('HSET', request, 'status', 'expired')
    redis.call('PEXPIRE', request, kept_ms)
    redis.call('ZREM', leases, id)
  end
end
