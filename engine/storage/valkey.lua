-- All verbs of a payer's store, each one atomic step. Time is the server's, unless ARGV[2] has it.
--
--   KEYS   six keys of one payer, in one hash slot:
--          values    hash   key -> value
--          index     zset   every key with score 0, which keeps them in the order of their bytes
--          expiries  zset   keys that end, by when (milliseconds since the epoch)
--          lives     hash   key -> life in milliseconds, of those that end
--          bytes     string what keys and values have together
--          reserved  hash   reservation -> entries:bytes:until when:key, kept free for a write;
--                           with a key nobody else may reserve that one so
--   ARGV   verb, now or "", and what the verb takes
--
-- What is over is removed first, whatever the verb, so that everything below is of what lives.

local values, index, expiries, lives, bytes = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local kept, reserved = {values, index, expiries, lives, bytes}, KEYS[6]
local call = redis.call
local FIRST = 3  -- of ARGV, what the verb takes; `replace` hands on what comes after its own

local now = tonumber(ARGV[2])
if not now then
    local time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Lua would write a large number as 1.7e+12.
local function integer(number)
    return string.format('%.0f', number)
end

local function remove(key)
    local value_bytes = call('HSTRLEN', values, key)
    if call('HDEL', values, key) == 0 then
        return 0
    end
    call('ZREM', index, key)
    call('ZREM', expiries, key)
    call('HDEL', lives, key)
    call('DECRBY', bytes, integer(#key + value_bytes))
    return 1
end

-- Let the server drop the whole payer once the last entry is over, unless one lives for ever.
local function keep()
    local count = call('ZCARD', index)
    if count == 0 then
        call('DEL', bytes)
    elseif call('ZCARD', expiries) == count then
        local last = tonumber(call('ZREVRANGE', expiries, 0, 0, 'WITHSCORES')[2])
        for _, name in ipairs(kept) do
            call('PEXPIREAT', name, integer(last))
        end
    else
        for _, name in ipairs(kept) do
            call('PERSIST', name)
        end
    end
end

-- What others than one reservation keep free, and whether one of them has a key alone.
local function reserved_beside(reservation, key)
    local entries, size, taken = 0, 0, false
    local all = call('HGETALL', reserved)
    for i = 1, #all, 2 do
        local more, more_bytes, ends, alone = string.match(all[i + 1], '^(%d+):(%d+):(%d+):(.*)$')
        if tonumber(ends) <= now then
            call('HDEL', reserved, all[i])
        elseif all[i] ~= reservation then
            entries, size = entries + tonumber(more), size + tonumber(more_bytes)
            taken = taken or (key ~= '' and alone == key)
        end
    end
    return entries, size, taken
end

local verbs = {}

-- keys: their values, or nothing
function verbs.get()
    local found, renewed = {}, false
    for i = FIRST, #ARGV do
        local key = ARGV[i]
        local life = call('HGET', lives, key)
        if life then
            call('ZADD', expiries, integer(now + life), key)
            renewed = true
        end
        found[#found + 1] = call('HGET', values, key)
    end
    if renewed then
        keep()
    end
    return found
end

-- entries_max, bytes_max, what to do, life, reservation, a key or "", then keys and values in turn.
-- `store` stores them with that life and uses the reservation up, `reserve` keeps room for them so
-- long, and has that key alone. Returns nothing; 'alone' if another has that; or if it is too much:
-- entries and bytes that are held, would be, are reserved.
function verbs.set()
    local entries_max, bytes_max = tonumber(ARGV[FIRST]), tonumber(ARGV[FIRST + 1])
    local how, life, reservation = ARGV[FIRST + 2], tonumber(ARGV[FIRST + 3]), ARGV[FIRST + 4]
    local alone = ARGV[FIRST + 5]
    local others, others_bytes, taken = reserved_beside(reservation, alone)
    if taken then
        return {'alone'}
    end
    local held_entries, held_bytes = call('ZCARD', index), tonumber(call('GET', bytes) or 0)
    local entries, size = held_entries, held_bytes
    for i = FIRST + 6, #ARGV, 2 do
        local key, value = ARGV[i], ARGV[i + 1]
        if call('HEXISTS', values, key) == 1 then
            size = size + #value - call('HSTRLEN', values, key)
        else
            entries, size = entries + 1, size + #key + #value
        end
    end
    if (entries + others > entries_max and entries > held_entries)
        or (size + others_bytes > bytes_max and size > held_bytes) then
        return {held_entries, held_bytes, entries, size, others, others_bytes}
    elseif how == 'reserve' then
        local more, more_bytes = entries - held_entries, math.max(0, size - held_bytes)
        local room = {integer(more), integer(more_bytes), integer(now + life), alone}
        call('HSET', reserved, reservation, table.concat(room, ':'))
        call('PEXPIREAT', reserved, integer(now + life))  -- all have the same life
        return {}
    elseif how ~= 'store' then
        return {}
    end
    call('HDEL', reserved, reservation)
    for i = FIRST + 6, #ARGV, 2 do
        local key, value = ARGV[i], ARGV[i + 1]
        call('HSET', values, key, value)
        call('ZADD', index, 0, key)
        if life > 0 then
            call('ZADD', expiries, integer(now + life), key)
            call('HSET', lives, key, integer(life))
        else
            call('ZREM', expiries, key)
            call('HDEL', lives, key)
        end
    end
    call('SET', bytes, integer(size))
    keep()
    return {}
end

-- keys: how many were there
function verbs.delete()
    local count = 0
    for i = FIRST, #ARGV do
        count = count + remove(ARGV[i])
    end
    if count > 0 then
        keep()
    end
    return count
end

-- key, 'present' or 'absent', value, then a verb and what that takes: done if that is what is there.
-- Returns what the verb does, or 'changed'.
function verbs.replace()
    local wanted = ARGV[FIRST + 1] == 'present' and ARGV[FIRST + 2]
    if call('HGET', values, ARGV[FIRST]) ~= wanted then
        return {'changed'}
    end
    FIRST = FIRST + 4
    return verbs[ARGV[FIRST - 1]]()
end

-- reservation: keep no room for it any more
function verbs.release()
    return call('HDEL', reserved, ARGV[FIRST])
end

-- from and to as ZRANGEBYLEX takes them, how many, keys only or not: keys and values in turn
function verbs.list()
    local from, to, count = ARGV[FIRST], ARGV[FIRST + 1], ARGV[FIRST + 2]
    local keys = call('ZRANGEBYLEX', index, from, to, 'LIMIT', 0, count)
    local page = {}
    for _, key in ipairs(keys) do
        page[#page + 1] = key
        page[#page + 1] = ARGV[FIRST + 3] == 'keys' and '' or call('HGET', values, key)
    end
    return page
end

local over = call('ZRANGEBYSCORE', expiries, '-inf', integer(now))
for _, key in ipairs(over) do
    remove(key)
end
if #over > 0 then
    keep()
end
return verbs[ARGV[1]]()
