-- What a coord asks of Redis or Valkey. Each script is one step for everybody else, and reads the server's clock alone.

-- name: spend
-- Spends units of several limits; where all must fit and do not, of none. The keys are in one hash slot.
--
-- KEYS    a limit each
-- ARGV    1 if all must fit, else 0; microseconds to shut a gate for, or -1;
--         then seven for each key: parts of a microsecond; cost, burst and burst - 1, each as microseconds and a rest
--         in parts
-- Reply   {number of the key that takes longest, microseconds until all of it fits}, or {0, 0}
--
-- A limit is kept as "tat rest gate": the moment it is full again, in microseconds since 1970 and a rest in parts; and when
-- the last gate opens, or 0. Below 2^53 every number here is an integer, and exact.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local n = {}
for i = 1, #ARGV do n[i] = tonumber(ARGV[i]) end
local kept, at, longest = {}, 0, 0
for i = 1, #KEYS do
  local parts, cost, cost_rest, room, room_rest, gap, gap_rest = unpack(n, 7 * i - 4, 7 * i + 2)
  local tat, rest, gate = now, 0, 0
  local found = redis.call('GET', KEYS[i])
  if found then
    tat, rest, gate = string.match(found, '(%d+) (%d+) (%d+)')
    tat, rest, gate = tonumber(tat), tonumber(rest), tonumber(gate)
    if rest >= parts then tat, rest = tat + 1, 0 end -- The limit has another rate now, and other parts.
    if tat < now then tat, rest = now, 0 end
  end
  if n[2] >= 0 and now + n[2] > gate then gate = now + n[2] end
  local shut = gate + gap -- When it is full, if one unit was there as the gate opened.
  if shut > tat or (shut == tat and gap_rest > rest) then tat, rest = shut, gap_rest end
  tat, rest = tat + cost, rest + cost_rest
  if rest >= parts then tat, rest = tat + 1, rest - parts end
  local wait = tat - room - now
  if rest > room_rest then wait = wait + 1 end
  if wait > longest then at, longest = i, wait end
  kept[i] = { tat, rest, gate, math.max(tat, shut) + 1 - now }
end
if n[1] == 1 and longest > 0 then return { at, longest } end
for i = 1, #KEYS do
  local tat, rest, gate, left = unpack(kept[i])
  if left > 0 then
    redis.call('SET', KEYS[i], string.format('%.0f %.0f %.0f', tat, rest, gate), 'PX', math.ceil(left / 1000))
  else
    redis.call('DEL', KEYS[i])
  end
end
return { at, longest }

-- name: probe
-- Takes a place. KEYS: who is tried. ARGV: an id, places there are, microseconds. Reply: 1, or 0 where all are taken.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
redis.call('PEXPIREAT', KEYS[1], math.ceil(tonumber(last) / 1000) + 1)
return 1

-- name: beat
-- Says that a process is alive. KEYS: all that are. ARGV: its id, microseconds. Reply: {how many there are, now in ms}.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.ceil(tonumber(ARGV[2]) / 1000) + 1)
return { redis.call('ZCARD', KEYS[1]), math.floor(now / 1000) }
