-- Hold amounts in every account of a payer, or in none.
-- KEYS: epoch, leases, request. ARGV: epoch, prefix, kept_ms, how long accounts outlive their windows, id, lease_ms,
-- hold * 4, and per limit: name, holder, window_ms, ceiling * 4 ('' for none).
local epoch, leases, request = KEYS[1], KEYS[2], KEYS[3]
local prefix, kept_ms, id, lease_ms = ARGV[2], ARGV[3], ARGV[5], tonumber(ARGV[6])
local hold, now = amounts_at(7), now_ms()
local there = redis.call('HMGET', epoch, 'id', 'ready_ms')
if there[1] ~= ARGV[1] then return {'epoch'} end
if now < tonumber(there[2]) then return {'rebuilding'} end
sweep(prefix, leases, now, 16, kept_ms)

local known = redis.call('HMGET', request, 'status', 'at_ms', 'until_ms', 'limit', 'resource')
if known[1] then
  local before = read(request, 'hold')
  for k = 1, 4 do if before[k] ~= hold[k] then return {'conflict', known[1]} end end
  return {known[1], known[2], known[3], known[4] or '', known[5] or ''}
end

local accounts, ends, taken, last = {}, {}, {}, nil
for first = 11, #ARGV, 7 do
  local window = tonumber(ARGV[first + 2])
  local started = math.floor(now / window) * window
  local account = prefix .. 'a:' .. ARGV[first] .. ':' .. ARGV[first + 1] .. ':' .. ARGV[first + 2]
    .. ':' .. text(started)
  accounts[#accounts + 1], ends[#ends + 1] = account, started + window
  local held, spent = read(account, 'held'), read(account, 'spent')
  for k, part in ipairs(PARTS) do
    local sum = tonumber(held[k]) + tonumber(spent[k]) + tonumber(hold[k])
    taken[#taken + 1] = text(sum)
    local ceiling = ARGV[first + 2 + k]
    if ceiling ~= '' and sum > tonumber(ceiling) and (not last or started + window > last.ends) then
      last = {ends = started + window, limit = ARGV[first], resource = part}
    end
  end
end

write(request, 'hold', hold)
if last then
  redis.call('HSET', request, 'status', 'refused', 'at_ms', text(now), 'until_ms', text(last.ends),
    'limit', last.limit, 'resource', last.resource)
  redis.call('PEXPIRE', request, kept_ms)
  return {'refused', text(now), text(last.ends), last.limit, last.resource}
end
for n, account in ipairs(accounts) do
  book(account, 'held', '', hold)
  redis.call('PEXPIREAT', account, text(ends[n] + tonumber(ARGV[4])))
end
redis.call('HSET', request, 'status', 'held', 'at_ms', text(now), 'until_ms', text(now + lease_ms),
  'accounts', table.concat(accounts, ' '))
redis.call('ZADD', leases, text(now + lease_ms), id)
return {'held', text(now), text(now + lease_ms), '', '', unpack(taken)}
