local ffi = require 'ffi'
local bit = require 'bit'

local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
print('fib', fib(27))
local t = {}
for i = 1, 200000 do t[i] = (i * 7919) % 100003 end
table.sort(t)
print('sort', t[1], t[1000], t[200000])
local s = {}
for i = 1, 50000 do s[#s + 1] = string.format('%d:%g;', i, math.sin(i)) end
s = table.concat(s)
print('strings', #s, (s:gsub('1', 'x'):sub(1, 200)), select(2, s:gsub('%d+:', '')))
local q = 0.0
for i = 1, 2000000 do q = q + math.sqrt(i) / (i + 1) + math.floor(i / 3) % 7 end
print('numbers', string.format('%.10f', q))
local co = coroutine.wrap(function() for i = 1, 100000 do coroutine.yield(i * i) end return -1 end)
local z = 0
for _ = 1, 100000 do z = z + co() end
print('coroutines', z)
local m, r = {}, {}
for i = 1, 100 do m[i] = {} for j = 1, 100 do m[i][j] = i * j % 17 + 0.5 end end
for i = 1, 100 do
    r[i] = {}
    for j = 1, 100 do local a = 0 for k = 1, 100 do a = a + m[i][k] * m[k][j] end r[i][j] = a end
end
print('matrix', r[50][50], r[100][1])
local h = 0
for i = 1, 3000000 do h = bit.bxor(bit.rol(h, 5), bit.band(i * 40503, 0xffff)) end
print('bits', h)
ffi.cdef 'typedef struct { uint8_t r, g; int16_t x; double d; int64_t n; } point; int abs(int); double sin(double);'
local a = ffi.new('point[?]', 1000)
for k = 0, 99 do
    for i = 0, 999 do
        local p = a[i]
        p.r, p.g, p.x, p.d, p.n = p.r + i, p.g * 3 + k, p.x - 7, p.d + ffi.C.sin(i), p.n * 31 + ffi.C.abs(-i)
    end
end
local c = 0LL
local d = 0
for i = 0, 999 do c, d = c * 31 + a[i].r + a[i].g + a[i].x + a[i].n, d + a[i].d end
print('ffi', c, string.format('%.9f', d))
local callback = ffi.cast('int (*)(int)', function(x) return x * 2 end)
local sum = 0
for i = 1, 20000 do sum = sum + callback(i) end
print('callbacks', sum)
-- Many small functions: traces are made and thrown away.
local x = 0
for i = 1, 300 do
    local f = loadstring('local x = ... for i = 1, 200 do x = (x * ' .. i .. ' + i) % 1000003 end return x')
    x = f(x)
end
print('new functions', x)
local ok, bad = 0, 0
for i = 1, 100000 do
    if pcall(function() if i % 5 == 0 then error('x') end return i end) then ok = ok + 1 else bad = bad + 1 end
end
print('errors', ok, bad)
