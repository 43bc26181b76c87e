#!/usr/bin/perl
use strict;
use warnings;
use Digest::SHA qw(sha512_hex);
use MIME::Base64;
use Math::BigInt;
use Storable qw(freeze thaw);

my (%h, $s);
$s = 1;
for my $i (1 .. 300000) {
    $s = ($s * 1103515245 + 12345) & 0x7fffffff;
    $h{ 'k' . ($s % 5000) } .= chr(97 + $s % 26);
}
my @k = sort keys %h;
print scalar(@k), "\n";
my $t = join '|', map { $h{$_} } @k;
my $c = () = $t =~ /a[b-f]+|xy?z/g;
print length($t), " $c\n";
(my $u = $t) =~ s/([aeiou])/uc $1/ge;
print substr($u, 0, 200), "\n";
my @a = map { ($_ * 7919) % 100003 + 0.5 * sin $_ } 1 .. 100000;
@a = sort { $a <=> $b } @a;
printf "%.9f %.9f\n", $a[0], $a[50000];
my $f = Math::BigInt->new(1);
$f->bmul($_) for 1 .. 400;
print "$f\n";
print unpack('%32C*', $t), ' ', sha512_hex($t), ' ', length encode_base64($t), "\n";
my $copy = thaw freeze \%h;
print join('', map { $copy->{$_} } @k) eq join('', map { $h{$_} } @k) ? "ok\n" : "bad\n";
my @children;
for my $n (1 .. 4) {
    my $pid = open $children[$n], '-|';
    if (!$pid) {
        my $x = $n;
        $x = ($x * 69069 + 1) & 0xffffffff for 1 .. 500000;
        print "$n $x\n";
        exit 0;
    }
}
print readline $children[$_] for 1 .. 4;
