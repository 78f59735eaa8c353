-- The epoch, begun if there is none: Redis was flushed, or is new. Reservations wait for `grace_ms`
-- after that, so that every gateway can say what it had spent.
-- KEYS: epoch. ARGV: proposed epoch, grace_ms, what keys of an epoch begin with, kept_ms, gateway.
local now = now_ms()
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'id', ARGV[1], 'ready_ms', text(now + tonumber(ARGV[2])))
end
local epoch = redis.call('HGET', KEYS[1], 'id')
local prefix = ARGV[3] .. epoch .. ':'
sweep(prefix, prefix .. 'leases', now, 128, ARGV[4])
return {epoch, redis.call('HGET', prefix .. 'contributed', ARGV[5]) or ''}
