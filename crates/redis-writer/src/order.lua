#!lua
-- Writes positions so that an older one never replaces a newer one, whoever writes and in whatever order.
--
-- KEYS  one key per position
-- ARGV  life of a position in ms, earliest effective time of these positions, then for each its value and its expiry
-- Reply number of keys that held another type, then the index of each position that was older than what its key held
--
-- Each value is written first and compared with what it replaced, all inside this one atomic call: positions are
-- nearly always newer, so that nearly always one command does. An older one is put back with its own expiry.
local byte, sub, call = string.byte, string.sub, redis.pcall

-- The effective time of a stored value: the end of the JSON form (`…"timestamp":1795441689633}`), or of the protobuf
-- form (field 8, a varint of six bytes until the year 2109). Anything else has no time and is overwritten.
local function time_of(value)
  if byte(value, -1) == 125 then
    return tonumber(sub(value, -14, -2))
  end
  local tag, a, b, c, d, e, f = byte(value, -7, -1)
  if tag == 64 and f then
    return a % 128 + b % 128 * 2 ^ 7 + c % 128 * 2 ^ 14 + d % 128 * 2 ^ 21 + e % 128 * 2 ^ 28 + f * 2 ^ 35
  end
end

local keys, args = KEYS, ARGV
local life, earliest = tonumber(args[1]), tonumber(args[2])
local reply = { 0 }
for i = 1, #keys do
  local key, value, expiry = keys[i], args[2 * i + 1], args[2 * i + 2]
  local old = call('SET', key, value, 'PXAT', expiry, 'GET')
  if type(old) == 'table' then
    if not old.err or sub(old.err, 1, 9) ~= 'WRONGTYPE' then
      return old
    end
    old = nil
    reply[1] = reply[1] + 1
    call('SET', key, value, 'PXAT', expiry)
  end
  local time = old and time_of(old)
  -- The second comparison decides; the first is cheaper and spares it where the position is certainly not older.
  if time and time > earliest and time > tonumber(expiry) - life then
    call('SET', key, old, 'PXAT', string.format('%.0f', time + life))
    reply[#reply + 1] = i
  end
end
return reply
