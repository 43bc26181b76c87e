#!/bin/bash
# valgrind.sh: a translator in the guest: memcheck, cachegrind

perl /work/random_c.pl 3 100 | sed 's/k < 2000/k < 60/' >random.c
gcc -O2 -w -o random random.c -lm
part native ./random >expected
for tool in memcheck "cachegrind --cachegrind-out-file=/dev/null" "none --smc-check=all"; do
    # shellcheck disable=SC2086 # options are words
    part "${tool%% *}" valgrind --error-exitcode=9 --tool=$tool -q ./random >output
    cmp output expected
done
part sha256sum valgrind -q --error-exitcode=9 sha256sum /usr/bin/bash
cat >bad.c <<'END'
#include <stdlib.h>
#include <string.h>
int main(int n, char **v) { char *p = malloc(10); memset(p, n, 10); if (p[n + 9]) p[n + 9]++; free(p); return 0; }
END
gcc -g -o bad bad.c
valgrind --error-exitcode=9 ./bad 2>&1 | grep -c 'Invalid'
