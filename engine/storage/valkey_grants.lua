-- What one payment has bought: a text that is never empty.
--
--   KEYS   its name
--   ARGV   read; or replace, what must be there, what is to be there: empty is for nothing
--
-- Reading tells the time too, in milliseconds since the epoch.

local now = redis.call('TIME')
local found = redis.call('GET', KEYS[1])

if ARGV[1] == 'read' then
    return {found, string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))}
elseif (found or '') ~= ARGV[2] then
    return 0
elseif ARGV[3] == '' then
    redis.call('DEL', KEYS[1])
else
    redis.call('SET', KEYS[1], ARGV[3])
end
return 1
