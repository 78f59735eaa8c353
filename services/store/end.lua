-- End an epoch that knows less than gateways can say again; what is left of it expires.
-- KEYS: epoch, leases, contributed. ARGV: epoch, prefix, kept_ms.
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return 'epoch' end
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  redis.call('PEXPIRE', ARGV[2] .. 'r:' .. id, ARGV[3])
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return 'done'
