import java.math.BigInteger;
import java.security.MessageDigest;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.stream.*;
import java.util.zip.*;

/** One line a test, the same in every mode of the virtual machine: Work SCALE. */
public class Work {
    static int scale;

    interface Shape { double area(); }
    record Circle(double r) implements Shape { public double area() { return r * r * 3.25; } }
    record Square(double a) implements Shape { public double area() { return a * a; } }
    record Other(double a, int n) implements Shape { public double area() { return a * n % 17; } }

    static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

    static double shapes() {
        Shape[] all = new Shape[1000];
        double sum = 0;
        for (int turn = 0; turn < 100 * scale; turn++) {
            for (int i = 0; i < all.length; i++)
                all[i] = turn < 50 * scale || i % 3 == 0 ? new Circle(i) : i % 3 == 1 ? new Square(i) : new Other(i, turn);
            for (Shape s : all) sum += s.area() * 1e-6;
        }
        return sum;
    }

    static int implicitChecks() { // null pointers and divisions by zero are signals of the processor
        int caught = 0;
        int[] numbers = new int[10];
        String[] words = {"a", null, "ccc"};
        for (int i = 0; i < 20000 * scale; i++) {
            try { caught += words[i % 3].length(); } catch (NullPointerException e) { caught += 7; }
            try { caught += 100 / (i % 5); } catch (ArithmeticException e) { caught += 11; }
            try { numbers[i % 11]++; } catch (ArrayIndexOutOfBoundsException e) { caught += 13; }
            try { Object o = i % 2 == 0 ? (Object) "x" : (Object) i; caught += ((String) o).length(); }
            catch (ClassCastException e) { caught += 17; }
        }
        return caught + Arrays.hashCode(numbers);
    }

    static int depth(int n) { return depth(n + 1) + 1; }

    static int stackOverflows() {
        int caught = 0;
        for (int i = 0; i < 5; i++) try { depth(0); } catch (StackOverflowError e) { caught++; }
        return caught;
    }

    static String digests() throws Exception {
        byte[] data = new byte[40000 * scale];
        for (int i = 0; i < data.length; i++) data[i] = (byte) (i * 31 + (i >> 8));
        StringBuilder all = new StringBuilder();
        for (String name : new String[] {"MD5", "SHA-1", "SHA-256", "SHA-512", "SHA3-256"})
            all.append(HexFormat.of().formatHex(MessageDigest.getInstance(name).digest(data)), 0, 8).append(' ');
        CRC32 crc = new CRC32();
        Adler32 adler = new Adler32();
        crc.update(data);
        adler.update(data);
        var cipher = javax.crypto.Cipher.getInstance("AES/GCM/NoPadding");
        cipher.init(1, new javax.crypto.spec.SecretKeySpec(data, 0, 16, "AES"),
            new javax.crypto.spec.GCMParameterSpec(128, data, 0, 12));
        crc.update(cipher.doFinal(data));
        return all.append(crc.getValue()).append(' ').append(adler.getValue()).toString();
    }

    static long collections() {
        Map<String, Integer> tree = new TreeMap<>(), hash = new HashMap<>();
        long seed = 1;
        for (int i = 0; i < 20000 * scale; i++) {
            seed = seed * 6364136223846793005L + 1442695040888963407L;
            String key = Long.toString(seed >>> 50, 36);
            tree.merge(key, i, Integer::sum);
            hash.merge(key, i, Integer::sum);
        }
        long sum = tree.equals(hash) ? 1 : 0;
        for (var e : tree.entrySet()) sum = sum * 31 + e.getKey().hashCode() + e.getValue();
        return sum;
    }

    static String streams() {
        return IntStream.range(0, 20000 * scale).parallel().filter(i -> i % 3 != 0).mapToObj(Integer::toString)
            .collect(Collectors.groupingBy(String::length, TreeMap::new, Collectors.counting())).toString();
    }

    static long threads() throws Exception {
        AtomicLong atomic = new AtomicLong();
        long[] locked = {0};
        ConcurrentHashMap<Integer, LongAdder> map = new ConcurrentHashMap<>();
        ExecutorService pool = Executors.newFixedThreadPool(4);
        List<Future<Long>> results = new ArrayList<>();
        for (int t = 0; t < 8; t++) {
            final int me = t;
            results.add(pool.submit(() -> {
                long x = me;
                for (int i = 0; i < 5000 * scale; i++) {
                    atomic.incrementAndGet();
                    synchronized (locked) { locked[0]++; }
                    map.computeIfAbsent(i % 64, k -> new LongAdder()).increment();
                    x = x * 31 + i;
                }
                return x;
            }));
        }
        long sum = 0;
        for (var r : results) sum += r.get();
        pool.shutdown();
        return sum + 3 * atomic.get() + 5 * locked[0] + 7 * map.values().stream().mapToLong(LongAdder::sum).sum();
    }

    static double arrays() { // loops that the compiler makes vectors of
        float[] a = new float[10000], b = new float[10000];
        int[] n = new int[10000];
        double sum = 0;
        for (int turn = 0; turn < 50 * scale; turn++) {
            for (int i = 0; i < a.length; i++) a[i] = i * 0.5f + turn;
            for (int i = 0; i < a.length; i++) b[i] = a[i] * 1.25f - b[i];
            for (int i = 0; i < n.length; i++) n[i] += i * turn ^ n[i] >>> 3;
            sum += b[turn] + n[turn % 977];
        }
        return sum + Arrays.hashCode(n);
    }

    static int garbage() {
        Object[] kept = new Object[2000];
        int sum = 0;
        for (int i = 0; i < 100000 * scale; i++) {
            Object[] o = {kept[i % 2000], new int[i % 50], "s" + i};
            kept[(i * 7) % 2000] = i % 100 == 0 ? null : o[2];
            sum += ((int[]) o[1]).length;
        }
        for (Object o : kept) sum = sum * 31 + (o == null ? 0 : o.hashCode());
        return sum;
    }

    public static void main(String[] arguments) throws Exception {
        scale = Integer.parseInt(arguments[0]);
        System.out.println("fib " + fib(20 + scale));
        System.out.println("shapes " + shapes());
        System.out.println("implicit checks " + implicitChecks());
        System.out.println("stack overflows " + stackOverflows());
        System.out.println("digests " + digests());
        System.out.println("collections " + collections());
        System.out.println("streams " + streams());
        System.out.println("threads " + threads());
        System.out.println("arrays " + arrays());
        System.out.println("garbage " + garbage());
        BigInteger big = BigInteger.ONE;
        for (int i = 1; i < 150 * scale; i++) big = big.multiply(BigInteger.valueOf(i));
        System.out.println("big " + big.bitLength() + " " + big.mod(BigInteger.valueOf(1000000007).pow(2)));
        double m = 0;
        for (int i = 1; i < 50000 * scale; i++)
            m += Math.sin(i) * Math.sqrt(i) - StrictMath.log(i) + Math.fma(i, 0.5, 1) + Math.floorMod(-i, 7) + Math.cbrt(i);
        System.out.println("maths " + m);
        System.out.println("text " + String.format("%.6f %,d %x", m, 1234567890L, 255).replaceAll("[0-3]+", "<$0>"));
    }
}
