#!/bin/bash
# gdb.sh: breakpoints, watchpoints in debug registers, single steps, signals and forks under a debugger

cat >program.c <<'END'
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int watched, other[8];
static volatile int seen;
static void handler(int n) { seen++; }
int leaf(int n) { return n * 3 + 1; }
int recursive(int n) { return n ? leaf(n) + recursive(n - 1) : 0; }
int main(void)
{
    signal(SIGUSR1, handler);
    for (int i = 0; i < 40; i++) {
        watched += recursive(i);
        other[i & 7] = i;
        if (i == 20) raise(SIGUSR1);
    }
    for (int i = 0; i < 8; i++)
        other[i] = 5;
    if (fork() == 0) { watched = leaf(7); _exit(3); }
    int status;
    wait(&status);
    printf("%d %d %d\n", watched, seen, WEXITSTATUS(status));
    return 0;
}
END
gcc -g -O0 -o program program.c
run() {
    gdb -q -batch -nx -ex 'set confirm off' -ex 'set disable-randomization on' -x "$1" ./program 2>gdb-errors |
        sed 's/process [0-9]*/process N/g; s/0x[0-9a-f]*/ADDRESS/g; s/Thread .*(LWP [0-9]*)/Thread/
            s/(n=[0-9-]*)/(n)/'
}
cat >breakpoints <<'END'
break leaf if n % 7 == 0
run
while $_isvoid($_exitcode)
  bt 3
  continue
end
END
cat >watchpoints <<'END'
break main
run
watch watched
rwatch other[3]
awatch other[5]
set $n = 0
while $n < 60
  continue
  set $n = $n + 1
end
info breakpoints
END
cat >steps <<'END'
break recursive
run
set $n = 0
while $n < 2000
  stepi
  set $n = $n + 1
end
info registers rip
step
next
finish
END
cat >other <<'END'
catch signal SIGUSR1
catch fork
catch syscall wait4
run
continue
continue
continue
kill
END
for script in breakpoints watchpoints steps other; do
    part $script run $script >output
    digest $script output
    wc -l <output
    cat output >&2
done
