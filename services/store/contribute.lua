-- What a gateway had spent by row `seq` of its journal, once per epoch; the row that it did so at.
-- KEYS: epoch, contributed. ARGV: epoch, how long accounts outlive their windows, gateway, seq, and
-- per account: key, ends_ms, spent * 4.
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return 'epoch' end
if redis.call('HSETNX', KEYS[2], ARGV[3], ARGV[4]) == 1 then
  for first = 5, #ARGV, 6 do
    book(ARGV[first], 'spent', '', amounts_at(first + 2))
    redis.call('PEXPIREAT', ARGV[first], text(tonumber(ARGV[first + 1]) + tonumber(ARGV[2])))
  end
end
return redis.call('HGET', KEYS[2], ARGV[3])
