-- How a request stands, as its gateway's journal has it; no limit is looked at. What is there of it
-- is replaced, its accounts too; said again, it changes nothing. One that was refused here may have
-- been granted by its gateway alone, which did not hear of that.
-- KEYS: epoch, leases, request. ARGV: epoch, prefix, kept_ms, how long accounts outlive their
-- windows, id, status, at_ms, until_ms, hold * 4, booked * 4, and per account: key, ends_ms.
local epoch, leases, request = KEYS[1], KEYS[2], KEYS[3]
local id, status, until_ms = ARGV[5], ARGV[6], ARGV[8]
local hold, booked = amounts_at(9), amounts_at(13)
if redis.call('HGET', epoch, 'id') ~= ARGV[1] then return 'epoch' end

local before = redis.call('HGET', request, 'status')
if before then
  local was = read(request, 'booked')
  local same = before == status
  for k = 1, 4 do same = same and (status == 'held' or was[k] == booked[k]) end
  if same and status ~= 'held' then return 'same' end
  if before ~= 'held' and before ~= 'expired' and before ~= 'refused' then return 'conflict' end
  for _, account in ipairs(accounts_of(request)) do
    book(account, before == 'held' and 'held' or 'spent', '-', read(request, 'hold'))
  end
end

local accounts = {}
for first = 17, #ARGV, 2 do
  accounts[#accounts + 1] = ARGV[first]
end
redis.call('HSET', request, 'at_ms', ARGV[7], 'accounts', table.concat(accounts, ' '))
redis.call('HDEL', request, 'limit', 'resource')
write(request, 'hold', hold)
write(request, 'booked', booked)
redis.call('HSET', request, 'status', status, 'until_ms', until_ms)
for _, account in ipairs(accounts) do
  if status == 'held' then book(account, 'held', '', hold) else book(account, 'spent', '', booked) end
end
for first = 17, #ARGV, 2 do
  redis.call('PEXPIREAT', ARGV[first], text(tonumber(ARGV[first + 1]) + tonumber(ARGV[4])))
end
if status == 'held' then
  redis.call('ZADD', leases, until_ms, id)
  redis.call('PERSIST', request)
else
  redis.call('ZREM', leases, id)
  redis.call('PEXPIRE', request, ARGV[3])
end
return 'done'
