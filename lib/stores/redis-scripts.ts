/**
 * What changes blocks and segments in Redis, each in one step. A block is a hash: `v` its bytes, `d` and `h` what they hash to, `k` the key it was kept
 * under, `l:…` its labels, numbered as they came, `n` the last number, `o` since when its segment is here, if it can be given to peers. What is
 * known of a segment is another: `c` its blocks, `t` since when it is here, `x` its secret, `f` where it is from, `i…` the blocks that
 * can be given to peers, `n` the last of them.
 *
 * Redis evicts each on its own: what is said of a block only counts while the block is here. `EXISTS` is no use of a key. Keys of blocks
 * that no caller can name are made here: they are in the slot of the others.
 */

/** Labels one block can carry; the oldest gives way. Policy, not protocol. */
const MAX_LABELS = 64;
/** Blocks of a segment that are looked for when what is known of it was evicted: those of one of version 1 (MS-PCCRC 2.3). */
const MAX_FOUND = 512;
/** Keys of one question: Lua has room for some thousand arguments. */
const MAX_TOGETHER = 512;

const COMMON = `
local call = redis.call
local function clear(key)
  local kind = call('TYPE', key).ok
  if kind ~= 'hash' and kind ~= 'none' then call('DEL', key) end
end
local function indexOf(field) return string.match(field, '^i(%d+)$') end
local function isHash(key) return call('TYPE', key).ok == 'hash' end
-- Whether any block that the segment says is here still is.
local function isAlive(row, base)
  local last = call('HGET', row, 'n')
  if last and call('EXISTS', base .. last) == 1 then return true end
  for _, field in ipairs(call('HKEYS', row)) do
    local index = indexOf(field)
    if index and call('EXISTS', base .. index) == 1 then return true end
  end
  return false
end
local function addLabel(block, label)
  local field = 'l:' .. label
  if call('HEXISTS', block, field) == 1 then return end
  local number = (tonumber(call('HGET', block, 'n')) or 0) + 1
  call('HSET', block, 'n', number, field, number)
  if call('HLEN', block) - 5 - call('HEXISTS', block, 'o') <= ${MAX_LABELS} then return end
  local oldest, least
  for _, each in ipairs(call('HKEYS', block)) do
    if string.sub(each, 1, 2) == 'l:' then
      local number = tonumber(call('HGET', block, each)) or 0
      if not least or number < least then oldest, least = each, number end
    end
  end
  if oldest then call('HDEL', block, oldest) end
end
local function remove(block, row, base, index)
  call('DEL', block)
  if index == '' or not isHash(row) then return end
  call('HDEL', row, 'i' .. index)
  if not isAlive(row, base) then call('DEL', row) end
end
`;

/** KEYS: block, segment. ARGV: start of the keys of its blocks, index, label, bytes, digest, hash, key, then of the segment: blocks, now, secret, from. */
export const SET_BLOCK = `${COMMON}
local block, row, base, index, label = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
clear(block)
if ARGV[8] ~= '' then
  clear(row)
  if call('EXISTS', row) == 1 and not isAlive(row, base) then call('DEL', row) end
  if call('EXISTS', row) == 0 then
    local since = ARGV[9]
    for other = 0, math.min(tonumber(ARGV[8]), ${MAX_FOUND}) - 1 do
      local key = base .. other
      local offered = call('EXISTS', key) == 1 and isHash(key) and call('HGET', key, 'o')
      if offered then
        call('HSET', row, 'i' .. other, '')
        if (tonumber(offered) or math.huge) < tonumber(since) then since = offered end
      end
    end
    call('HSET', row, 'c', ARGV[8], 't', since)
    if ARGV[10] ~= '' then call('HSET', row, 'x', ARGV[10]) end
    if ARGV[11] ~= '' then call('HSET', row, 'f', ARGV[11]) end
  end
  call('HSET', row, 'i' .. index, '', 'n', index)
  call('HSET', block, 'o', call('HGET', row, 't') or ARGV[9])
elseif index ~= '' and call('EXISTS', block) == 0 and isHash(row) then
  -- The block that was given away has been evicted; this one is its owner's alone.
  call('HDEL', row, 'i' .. index)
end
call('HSET', block, 'v', ARGV[4], 'd', ARGV[5], 'h', ARGV[6], 'k', ARGV[7])
addLabel(block, label)
return 1`;

/** KEYS: block. ARGV: label. */
export const LABEL_BLOCK = `${COMMON}
if isHash(KEYS[1]) and call('HEXISTS', KEYS[1], 'v') == 1 then addLabel(KEYS[1], ARGV[1]) end
return 1`;

/** KEYS: block, segment. ARGV: start of the keys of its blocks, index. */
export const DELETE_BLOCK = `${COMMON}
remove(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
return 1`;

/** KEYS: block, segment. ARGV: start of the keys of its blocks, index, label. What is no block goes too. */
export const FLUSH_BLOCK = `${COMMON}
if isHash(KEYS[1]) and call('HDEL', KEYS[1], 'l:' .. ARGV[3]) == 0 then return 0 end
if isHash(KEYS[1]) then
  for _, field in ipairs(call('HKEYS', KEYS[1])) do
    if string.sub(field, 1, 2) == 'l:' then return 0 end
  end
end
remove(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
return 1`;

/** KEYS: segment. ARGV: start of the keys of its blocks. Replies blocks, since, secret, from, and the indexes of the blocks that are here, with commas. */
export const READ_SEGMENT = `${COMMON}
local row, base = KEYS[1], ARGV[1]
if not isHash(row) then return false end
local reply = call('HMGET', row, 'c', 't', 'x', 'f')
local here, gone, indexes, keys = {}, {}, {}, {}
local function look()
  -- Mostly all are here, and one question is enough.
  local areAll = #keys > 0 and call('EXISTS', unpack(keys)) == #keys
  for at, index in ipairs(indexes) do
    if areAll or call('EXISTS', keys[at]) == 1 then here[#here + 1] = index
    else gone[#gone + 1] = 'i' .. index end
  end
  indexes, keys = {}, {}
end
for _, field in ipairs(call('HKEYS', row)) do
  local index = indexOf(field)
  if index then
    indexes[#indexes + 1], keys[#keys + 1] = index, base .. index
    if #keys == ${MAX_TOGETHER} then look() end
  end
end
look()
if #here == 0 then
  call('DEL', row)
  return false
end
for _, field in ipairs(gone) do call('HDEL', row, field) end
reply[5] = table.concat(here, ',')
return reply`;
