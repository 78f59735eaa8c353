-- The epoch, begun if there is none: Redis was flushed, or is new. Reservations wait for `grace_ms`
-- after that, so that every gateway can say what it had spent.
-- A gateway has said all up to a row of its journal only to the process that heard it: one that
-- restarts may know less.
-- KEYS: epoch. ARGV: proposed epoch, grace_ms, what keys of an epoch begin with, kept_ms, gateway,
-- and the epoch and the process to which it said all up to which row.
local now = now_ms()
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'id', ARGV[1], 'ready_ms', text(now + tonumber(ARGV[2])))
end
local epoch = redis.call('HGET', KEYS[1], 'id')
local prefix = ARGV[3] .. epoch .. ':'
sweep(prefix, prefix .. 'leases', now, 128, ARGV[4])
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local heard = redis.call('HGET', prefix .. 'contributed', ARGV[5])
if heard and epoch == ARGV[6] and run_id == ARGV[7] and tonumber(ARGV[8]) > tonumber(heard) then
  redis.call('HSET', prefix .. 'contributed', ARGV[5], ARGV[8])
  heard = ARGV[8]
end
return {epoch, run_id, heard or ''}
