-- The same decisions as rates.py, for all replicas: one call of one function, atomic, by the server's own clock.
-- KEYS: every key that is touched (all share one hash tag). ARGV[1]: a JSON list of operations, which name keys by number.
-- One answer for each operation, whole numbers only.

local MINUTE = 60000
local SPARE = 1000 -- milliseconds that a key outlives its content

-- Kept is until when a bucket has leaked: a clock that was set back leaks nothing twice, and freezes for a minute at most.
local function keep(key, content, limit, at, now)
  if content <= 0 then return redis.call('DEL', key) end
  local life = at - now + math.ceil(content / limit) + SPARE
  redis.call('SET', key, string.format('%.0f %.0f', content, at), 'PX', string.format('%.0f', life))
end

-- What is in a bucket, and until when it has leaked.
local function content_of(key, limit, now)
  local kept = redis.call('GET', key)
  if not kept then return 0, now end
  local content, at = string.match(kept, '^(%d+) (%d+)$')
  content, at = tonumber(content), tonumber(at)
  if at > now + MINUTE then
    at = now + MINUTE
    keep(key, content, limit, at, now)
  end
  return math.max(0, content - limit * math.max(0, now - at)), math.max(at, now)
end

local function running(key, now)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
  return redis.call('ZCARD', key)
end

local function lease(key, attempt, now, life)
  redis.call('ZADD', key, string.format('%.0f', now + life), attempt)
  redis.call('PEXPIRE', key, life + SPARE)
end

local operations = {}

-- attempt, life of the lease in ms, list of {is slots, key, limit, amount} -> {0} or {place, used, wait}
function operations.admit(keys, now, attempt, life, takes)
  local filled, leaks_from, full = {}, {}, nil
  for place, take in ipairs(takes) do
    local key, limit = keys[take[2]], take[3]
    if take[1] == 1 then
      local count = running(key, now)
      if count >= limit and not full and not redis.call('ZSCORE', key, attempt) then full = {place, count, 0} end
    else
      local brim, poured = limit * MINUTE, take[4] * MINUTE
      local content, at = content_of(key, limit, now)
      if content > 0 and content + poured > brim then
        local wait = math.ceil((content + math.min(poured, brim) - brim) / limit)
        if not full or wait > full[3] then full = {place, math.ceil(content / MINUTE), wait} end
      end
      filled[place], leaks_from[place] = content + poured, at
    end
  end
  if full then return full end
  for place, take in ipairs(takes) do
    if take[1] == 1 then lease(keys[take[2]], attempt, now, life)
    else keep(keys[take[2]], filled[place], take[3], leaks_from[place], now) end
  end
  return {0}
end

-- list of {key, limit, difference} -> {}
function operations.correct(keys, now, changes)
  for _, change in ipairs(changes) do
    local key, limit = keys[change[1]], change[2]
    local content, at = content_of(key, limit, now)
    keep(key, content + change[3] * MINUTE, limit, at, now)
  end
  return {}
end

-- attempt, life, list of keys -> {}
function operations.renew(keys, now, attempt, life, slots)
  for _, slot in ipairs(slots) do lease(keys[slot], attempt, now, life) end
  return {}
end

-- attempt, list of keys -> {}
function operations.release(keys, now, attempt, slots)
  for _, slot in ipairs(slots) do redis.call('ZREM', keys[slot], attempt) end
  return {}
end

-- list of {is slots, key, limit} -> what is in use of each
function operations.used(keys, now, limits)
  local found = {}
  for place, limit in ipairs(limits) do
    local key = keys[limit[2]]
    if limit[1] == 1 then found[place] = running(key, now)
    else
      local content = content_of(key, limit[3], now)
      found[place] = math.ceil(content / MINUTE)
    end
  end
  return found
end

-- replica, life, key -> {how many replicas there are}
function operations.present(keys, now, replica, life, key)
  lease(keys[key], replica, now, life)
  return {running(keys[key], now)}
end

-- The first answer is the time by which all were decided.
local function decide(keys, args)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local answers = {{now}}
  for _, operation in ipairs(cjson.decode(args[1])) do
    answers[#answers + 1] = operations[operation[1]](keys, now, unpack(operation, 2))
  end
  return answers
end

redis.register_function('FUNCTION_NAME', decide)
