#!lua
-- Writes positions so that an older one never replaces a newer one, whoever writes and in whatever order.
--
-- KEYS  one key per position
-- ARGV  life of a position in ms, earliest effective time of these positions, where their records lie in Kafka (for each
--       four bytes of partition and eight of offset, little-endian), then for each its value and its expiry
-- Reply number of keys that held another type, then the index of each position that was older than what its key held
--
-- Each value is written first and compared with what it replaced, all inside this one atomic call: positions are
-- nearly always newer, so that nearly always one command does. An older one is put back with its own expiry. What is
-- done for every position is written for speed: each call of a function of Lua's costs it a twentieth of a microsecond.
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

-- Partition and offset of the record behind a value that has won a tie: at its beginning. Others do not hold them.
local function place_in(value)
  local partition, offset = string.match(value, '^{"partition":(%d+),"offset":(%d+),')
  if offset then
    return tonumber(partition), tonumber(offset)
  elseif byte(value, 1) == 77 and byte(value, 6) == 81 then
    return (struct.unpack('<I4', value, 2)), (struct.unpack('<I8', value, 7))
  end
end

-- The value with the place of its record: two more JSON fields, or the protobuf fields 9 and 10.
local function with_place(value, partition, offset)
  if byte(value, 1) == 123 then
    return string.format('{"partition":%.0f,"offset":%.0f,', partition, offset) .. sub(value, 2)
  end
  return struct.pack('<BI4BI8', 77, partition, 81, offset) .. value
end

local keys, args = KEYS, ARGV
local life, earliest, places = tonumber(args[1]), tonumber(args[2]), args[3]
-- Times of thirteen digits (until 2286) are in order as texts, in any locale, and a time of fewer digits is older than
-- they; reading a number out of a text takes ten times as long. Nothing is less than the empty text.
local earliest_text = earliest >= 1e12 and earliest < 1e13 and args[2] or ''

-- Two positions of one driver with the same effective time: the later record of the partition is the newer one, and
-- of two partitions that of the higher number. Whether the old value must be put back; if not, the new one from now on
-- tells its place, so that the old one cannot come back. What a value without a place was written from is not known,
-- nor needed: whoever preferred it to another of its time would have given it one.
local function keeps_old_in_tie(old, i, key, value, expiry)
  if old == value then
    return false
  end
  local partition = (struct.unpack('<I4', places, i * 12 - 11))
  local offset = (struct.unpack('<I8', places, i * 12 - 7))
  local old_partition, old_offset = place_in(old)
  if old_partition and (old_partition > partition or old_partition == partition and old_offset > offset) then
    return true
  end
  if not place_in(value) then
    call('SET', key, with_place(value, partition, offset), 'PXAT', expiry)
  end
  return false
end

local reply = { 0 }
for i = 1, #keys do
  local key, value, expiry = keys[i], args[2 * i + 2], args[2 * i + 3]
  local old = call('SET', key, value, 'PXAT', expiry, 'GET')
  -- Only an error has this field: a value is a text, and what a text has is Lua's library of texts.
  if old and old.err then
    if sub(old.err, 1, 9) ~= 'WRONGTYPE' then
      return old
    end
    old = nil
    reply[1] = reply[1] + 1
    call('SET', key, value, 'PXAT', expiry)
  end
  local is_older = old and byte(old, -1) == 125 and sub(old, -14, -2) < earliest_text
  local time = old and not is_older and time_of(old)
  -- The comparisons below decide; these are cheaper and spare them where the position is certainly not older.
  if time and time >= earliest then
    local own = tonumber(expiry) - life
    if time > own or time == own and keeps_old_in_tie(old, i, key, value, expiry) then
      call('SET', key, old, 'PXAT', string.format('%.0f', time + life))
      reply[#reply + 1] = i
    end
  end
end
return reply
