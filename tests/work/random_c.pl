#!/usr/bin/perl
# random_c.pl SEED N: a C program of N random functions, which prints what they compute
use strict;
use warnings;

srand($ARGV[0]);
my $n = $ARGV[1];
my @types = qw(u64 i64 u32 i32 u16 i16 u8 i8);

sub one_of { return $_[ int rand @_ ] }

sub constant {
    my $v = int(rand 2**32) * 2**20 + int rand 2**20;
    return sprintf('%dull', $v >> one_of(0, 20, 21, 36, 44, 49));
}

sub expression {
    my ($depth) = @_;
    if ($depth == 0) {
        return one_of('a', 'b', 'c', 'words[(a + ' . int(rand 999) . ') & 4095]',
            'bytes[(b ^ ' . int(rand 9999) . ') & 8191]', constant());
    }
    my ($x, $y, $t) = (expression($depth - 1), expression($depth - 1), one_of(@types));
    my $k = int rand 18;
    return "((($t)($x)) " . one_of(qw(+ - * & | ^)) . " ($y))" if $k < 6;
    return '((' . one_of(@types) . ")($x) >> (($y) & 7))" if $k == 6;
    return "((u64)($x) << (($y) & 63))" if $k == 7;
    return "((u64)(($t)($x)) / (u64)((($t)($y)) | 1))" if $k == 8;
    return "((u64)($x) % (((u64)($y)) | 1))" if $k == 9;
    return "(($t)($x) < ($t)($y) ? ($y) : ~($x))" if $k == 10;
    return "(u64)__builtin_popcountll($x)" if $k == 11;
    return "__builtin_bswap64($x)" if $k == 12;
    return "($t)(($t)($x) " . one_of(qw(< > == != <= >=)) . " ($t)($y))" if $k == 13;
    return "(u64)(((unsigned __int128)($x) * ($y)) >> 64)" if $k == 14;
    return "(u64)(((__int128)(i64)($x) * (i64)($y)) >> 32)" if $k == 15;
    return "(u64)(i64)((double)(i32)($x) * 0.25 + (float)(i16)($y))" if $k == 16;
    return "(u64)__builtin_clzll(($x) | 1)";
}

print <<'END';
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
typedef uint64_t u64; typedef uint32_t u32; typedef uint16_t u16; typedef uint8_t u8;
typedef int64_t i64; typedef int32_t i32; typedef int16_t i16; typedef int8_t i8;
static u64 words[4096];
static double reals[1024];
static u8 bytes[8192];
END
for my $i (0 .. $n - 1) {
    print "static __attribute__((noinline)) u64 f$i(u64 a, u64 b, u64 c)\n{\n";
    my ($k, $turns) = (int rand 7, 1 + int rand 90);
    if ($k == 0) {
        my ($step, $e, $m) = (1 + int rand 9, expression(1), int rand 99);
        print "for (int i = 0; i < $turns; i++) { words[(i * $step + a) & 4095] ^= $e;",
            " c += words[(i + b) & 4095] * $m; }\n";
    } elsif ($k == 1) {
        my ($far, $m, $p) = (int rand 64, int rand 9, int rand 255);
        print "for (int i = 0; i < 3 * $turns; i++)",
            " bytes[i] = (u8)(bytes[i + $far] * $m + $p + (a & 7)); c ^= bytes[b & 255];\n";
    } elsif ($k == 2) {
        my $r = rand;
        print "double s = 0; for (int i = 0; i < $turns; i++) {",
            " reals[i] = reals[i] * 0.5 + (double)(i32)(a + i) * $r; s += sqrt(fabs(reals[i])); }",
            " c += (u64)(i64)(s * 0.001);\n";
    } elsif ($k == 3) {
        print "switch (a % 7) { case 0: b += 3; break; case 1: b ^= c; break; case 2: b *= 5; break;",
            " case 3: b = ~b; break; case 4: b >>= 3; break; case 5: b -= a; break;",
            " default: b |= 1; }\n";
    } elsif ($k == 4) {
        my $size = 1 + int rand 300;
        print "memmove(bytes + (a & 1023), bytes + (b & 2047), $size);",
            " c += memcmp(bytes + (b & 511), bytes + (c & 511), $size) > 0;\n";
    }
    my @e = map { expression(2) } 1 .. 4;
    print "u64 x = $e[0], y = $e[1]; a = x; b = y; c ^= $e[2]; return ($e[3]) ^ (c + y);\n}\n";
}
print "typedef u64 function(u64, u64, u64);\nstatic function *const all[] = {",
    join(', ', map { "f$_" } 0 .. $n - 1), "};\n";
print <<"END";
int main(void)
{
    u64 h = 1;
    for (int i = 0; i < 4096; i++)
        words[i] = i * 0x9e3779b97f4a7c15ull;
    for (int k = 0; k < 2000; k++) {
        for (int i = 0; i < $n; i++)
            h = h * 31 + all[i](h, h >> 7 ^ i, k);
        if (k % 40 == 0)
            printf("%016llx\\n", (unsigned long long)h);
    }
}
END
