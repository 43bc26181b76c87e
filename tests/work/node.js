'use strict';
// One line a test, the same in every mode of the compiler.
const crypto = require('crypto');
const zlib = require('zlib');
const { Worker } = require('worker_threads');
const scale = process.argv.includes('--jitless') || process.argv.includes('--no-opt') ? 0.2 : 1;

const digest = (value) => crypto.createHash('sha256').update(String(value)).digest('hex').slice(0, 16);
const test = (name, run) => console.log(name, digest(run()));

test('fib', () => { const fib = (n) => (n < 2 ? n : fib(n - 1) + fib(n - 2)); return fib(30 * scale | 0); });
test('matrix', () => {
    const n = 300 * scale | 0;
    const b = Float64Array.from({ length: n * n }, (_, i) => i % 17 + .5);
    const c = Float64Array.from({ length: n * n }, (_, i) => i % 13 - .25);
    const d = new Float64Array(n * n);
    for (let i = 0; i < n; i++)
        for (let j = 0; j < n; j++) {
            let s = 0;
            for (let k = 0; k < n; k++) s += b[i * n + k] * c[k * n + j];
            d[i * n + j] = s;
        }
    return [d[5], d[n * n - 7], d.reduce((x, y) => x + y, 0)];
});
test('objects', () => {
    const o = {};
    for (let i = 0; i < 300000 * scale; i++) o['k' + i * 7919 % 50021] = (o['k' + i * 7919 % 50021] || 0) + i;
    return JSON.stringify(JSON.parse(JSON.stringify(o)));
});
test('strings', () => {
    let s = '';
    for (let i = 0; i < 100000; i++) s += String.fromCharCode(97 + i * i % 26);
    const z = zlib.deflateSync(Buffer.from(s.repeat(20)));
    return [s.replace(/(a|b)c?[d-k]+/g, '<$1>'), s.match(/[aeiou]{2,}/g)?.length,
        zlib.inflateSync(z).toString() === s.repeat(20), zlib.brotliCompressSync(s).length > 0];
});
test('bigint', () => { let x = 1n; for (let i = 1n; i < 2000n; i++) x *= i; return x * x / 12345678901234567891n; });
test('classes', () => {
    class P {
        constructor(x, y) { this.x = x; this.y = y; }
        add(o) { return new P(this.x + o.x | 0, this.y - o.y | 0); }
    }
    let p = new P(0, 0);
    for (let i = 0; i < 2e6 * scale; i++) p = p.add(new P(i, i * 3));
    return [p.x, p.y];
});
test('new functions', () => {
    let r = 0;
    for (let k = 0; k < 400 * scale; k++) {
        const f = new Function('x', 'y',
            `let s=0;for(let i=0;i<2000;i++){s=(s*${k + 3}+x*i^y)|0;}return s+${k}`);
        for (let j = 0; j < 5; j++) r ^= f(j, k);
    }
    return r;
});
test('deoptimised', () => {
    const add = (a, b) => a.v + b.v;
    const values = [1, 1.5, 'x', { toString: () => 'y' }, null, undefined, true, 2n ** 40n > 1n];
    let r = 0;
    for (let turn = 0; turn < 40 * scale; turn++)
        for (let i = 0; i < 20000; i++) {
            const o = turn % 2 ? { v: values[turn % values.length] } : { w: i, v: i };
            r = (r * 31 + String(add(o, { v: i })).length) | 0;
        }
    return r;
});
test('exceptions', () => {
    const f = (i) => { if (i % 3 === 0) throw new RangeError(i); return i; };
    let r = 0;
    for (let i = 0; i < 100000 * scale; i++) try { r += f(i); } catch (e) { r ^= +e.message; } finally { r |= 0; }
    return r;
});
test('generators', () => {
    function* g(n) { for (let i = 0; i < n; i++) yield* [i, i * i % 7]; }
    let r = 0;
    for (const x of g(200000 * scale)) r = (r * 33 + x) | 0;
    return r;
});
test('typed arrays', () => {
    const t = new Int32Array(1e6 * scale);
    for (let i = 0; i < t.length; i++) t[i] = Math.imul(i, 2654435761);
    t.sort();
    const f = Float32Array.from(t.subarray(0, 1000));
    return [t[0], t[t.length >> 1], t[t.length - 1], f.reduce((a, b) => Math.fround(a + b)),
        new Uint8ClampedArray([300, -5, 1.5, NaN]), new DataView(t.buffer).getFloat64(88)];
});
test('maths', () => {
    let m = 0;
    for (let i = 1; i < 1e6 * scale; i++)
        m += Math.sin(i) * Math.pow(i, .3) - Math.log(i) % 1 + Math.atan2(i, 3) + Math.cbrt(i) + Math.fround(i / 3)
            + Math.hypot(i, 2) + Math.trunc(i / 7) + Math.clz32(i);
    return m;
});
test('maps', () => {
    const m = new Map(), w = new WeakMap(), keys = [];
    for (let i = 0; i < 200000 * scale; i++) {
        m.set(i * 48271 % 65537, i);
        if (i % 10 === 0) { const k = {}; keys.push(k); w.set(k, i); }
    }
    return [m.size, [...m.values()].reduce((a, b) => (a * 3 + b) | 0), keys.reduce((a, k) => a + w.get(k), 0)];
});
if (typeof WebAssembly === 'object') {
    // (func $f (param i64) (result i64)): Fibonacci's numbers
    const fib = [0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 126, 1, 126, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 30, 1,
        28, 0, 32, 0, 66, 2, 83, 4, 126, 32, 0, 5, 32, 0, 66, 1, 125, 16, 0, 32, 0, 66, 2, 125, 16, 0, 124, 11, 11];
    // the same, one module after the other, each compiled and instantiated anew
    let r = 0n;
    for (let i = 0; i < 60 * scale; i++)
        r += new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(fib))).exports.f(BigInt(10 + i % 16));
    console.log('wasm', r > 0n);
    const m = new WebAssembly.Memory({ initial: 1, maximum: 20 });
    const before = m.grow(3);
    console.log('wasm memory', before, m.buffer.byteLength);
    // (memory 1) (func (export "f") (param i32) (result i32) local.get 0 i32.load): a trap beyond the end
    const load = [0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 5, 3, 1, 0, 1, 7, 5, 1, 1, 102, 0,
        0, 10, 9, 1, 7, 0, 32, 0, 40, 2, 0, 11];
    const f = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(load))).exports.f;
    let traps = 0;
    for (let i = 0; i < 2000; i++) try { f(i * 64); } catch (e) { traps += e instanceof WebAssembly.RuntimeError; }
    console.log('wasm traps', traps);
}
const results = [];
const job = `const { parentPort, workerData } = require('worker_threads');
    let s = 0; for (let i = 0; i < 3e6 * workerData.scale; i++) s = (s * 31 + i * workerData.n) | 0;
    for (let i = 0; i < 1000; i++) Atomics.add(workerData.shared, 0, 1);
    parentPort.postMessage(s)`;
const shared = new Int32Array(new SharedArrayBuffer(4));
let left = 4;
for (let n = 0; n < 4; n++)
    new Worker(job, { eval: true, workerData: { n: n + 1, scale, shared } }).on('message', (s) => { results[n] = s; })
        .on('exit', () => { if (--left === 0) console.log('workers', results.join(' '), shared[0]); });
