#!/usr/bin/env python3
"""Runs real work in a guest and compares it with the same work on the host.

    guest_work.py [--engine NAME] [--cpus LIST] [--only NAME,...] [--list] [--json FILE] [--times N]
                  [--trapeze PROGRAM] [--no-native] [-- OPTION...]

A workload is a script in tests/work with its arguments. It passes if it exits with 0 and prints
what it prints on the host, in the same tree of Debian packages (in namespaces of its own, below an
overlay, so nothing is left behind); work on the guest's kernel itself only has to exit with 0.
Lines "@time NAME SECONDS" are times of its parts, not compared. The guest's kernel must not complain.
The table has processor time, of the guest with its start.

Packages are downloaded and unpacked below TRAPEZE_CACHE (default ~/.cache/trapeze), never
installed; each set of them is an initramfs there. Results on the host are kept there too, as long as the
scripts and packages stay the same; remove the folder work/native to measure again.

Limits are for an idle host; --times N multiplies them. OPTIONs are given to "trapeze run". Databases
don't run as root: they need root here, to become another user. The table goes to standard output, one
line a workload; consoles and outputs go to a folder that is named at the end.
"""
import argparse
import ctypes
import difflib
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
scripts = os.path.join(here, '../tests/work')
cache = os.environ.get('TRAPEZE_CACHE') or os.path.join(
    os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'trapeze')

# What every tree has, and what each adds.
BASE = ('base-passwd base-files libc-bin debianutils dash bash coreutils util-linux mount kmod procps'
        ' mawk sed grep findutils diffutils iproute2 perl')
IMAGES = {
    'tools': 'gcc libc6-dev make libzydis-dev libjansson-dev zlib1g-dev openssl sqlite3 gzip bzip2'
             ' xz-utils zstd stress-ng strace',
    'python': 'python3 libpython3.11-testsuite openssl netbase',
    'jit': 'nodejs luajit pypy3 pypy3-lib-testsuite valgrind gdb gcc libc6-dev',
    'java': 'openjdk-17-jdk-headless',
    'go': 'golang-1.19-go golang-1.19-src',
    'postgres': 'postgresql-15',
    'mariadb': 'mariadb-server mariadb-test',
    'kernel': 'fio e2fsprogs btrfs-progs xfsprogs mdadm cryptsetup-bin dmsetup nftables iperf3 python3',
    'trace': 'bpftrace python3 gcc libc6-dev',
}
# The generic kernel's modules are in those that it runs, without devices that no guest here has.
WITH_MODULES = ('kernel', 'trace')
NO_MODULES = ('gpu', 'media', 'ethernet', 'wireless', 'sound', 'infiniband', 'scsi', 'staging', 'iio', 'hid',
              'usb', 'input', 'hwmon', 'mtd', 'isdn', 'comedi', 'thunderbolt', 'video', 'platform', 'nvme')


class Work:
    """
    One line of the table: a command of no more than 30 words, which the kernel hands to its init,
    its image, its limit in seconds, and how it is judged.
    """

    def __init__(self, name, image, limit, command, native=True, kernel='cloud', memory='3G'):
        self.name, self.image, self.limit, self.command = name, image, limit, command
        self.native, self.kernel, self.memory = native, kernel, memory


WORK = [
    Work('gcc', 'tools', 600, 'gcc.sh'),
    Work('random-c', 'tools', 600, 'random_c.sh'),
    Work('code-changes', 'tools', 300, 'code_changes.sh'),
    Work('archives', 'tools', 300, 'archives.sh'),
    Work('openssl', 'tools', 600, 'openssl.sh'),
    Work('sqlite', 'tools', 300, 'sqlite.sh'),
    Work('perl', 'tools', 300, 'perl.sh'),
    Work('python-numbers', 'python', 900, 'python.sh python3 test_long test_float test_math test_cmath'
         ' test_complex test_int test_decimal test_fractions test_statistics test_random test_struct'
         ' test_array test_strtod test_hashlib test_hmac test_binascii test_zlib test_bz2 test_lzma'),
    Work('python-language', 'python', 900, 'python.sh python3 test_bytes test_unicode test_re test_json'
         ' test_pickle test_sort test_heapq test_itertools test_set test_dict test_generators'
         ' test_exceptions test_gc test_compile test_ast test_coroutines test_functools'
         ' test_dataclasses test_typing test_ctypes test_mmap'),
    Work('python-system', 'python', 1200, 'python.sh python3 test_threading test_thread test_signal'
         ' test_threadsignals test_subprocess test_fork1 test_queue test_select test_selectors'
         ' test_posix test_os test_faulthandler test_socket test_eintr test_time test_tempfile'
         ' test_shutil test_io'),
    Work('python-fork', 'python', 900, 'python.sh python3 test_multiprocessing_fork'),
    Work('python-spawn', 'python', 900, 'python.sh python3 test_multiprocessing_spawn'),
    Work('python-parallel', 'python', 900, 'python.sh python3 test_concurrent_futures test_asyncio'),
    Work('node', 'jit', 600, 'node.sh'),
    Work('luajit', 'jit', 300, 'luajit.sh'),
    Work('pypy', 'jit', 900, 'python.sh pypy3 test_long test_math test_json test_re test_struct'
         ' test_itertools test_threading test_decimal test_pickle'),
    Work('valgrind', 'jit', 600, 'valgrind.sh'),
    Work('gdb', 'jit', 600, 'gdb.sh'),
    Work('java', 'java', 900, 'java.sh'),
    Work('go-runtime', 'go', 900, 'go.sh sync sync/atomic runtime/internal/atomic internal/bytealg context'
         ' os/signal reflect', memory='4G'),
    Work('go-library', 'go', 900, 'go.sh sort strconv unicode/utf8 bytes strings bufio container/heap'
         ' encoding/json encoding/gob encoding/base64 regexp text/template go/parser go/scanner'
         ' index/suffixarray', memory='4G'),
    Work('go-numbers', 'go', 900, 'go.sh math math/bits math/big math/rand crypto/aes crypto/sha256'
         ' crypto/sha512 crypto/md5 crypto/ed25519 crypto/elliptic hash/crc32 hash/maphash compress/flate',
         memory='4G'),
    Work('postgres', 'postgres', 900, 'postgres.sh'),
    Work('mariadb-functions', 'mariadb', 900, 'mariadb.sh cast compress ctype_latin1 ctype_utf8 func_compress'
         ' func_concat func_crypt func_date_add func_default func_if func_in func_json func_math func_op'
         ' func_regexp func_str func_time xml', memory='4G'),
    Work('mariadb-types', 'mariadb', 900, 'mariadb.sh bigint bool case compare date_formats null round type_bit'
         ' type_blob type_date type_decimal type_enum type_float type_newdecimal type_uint', memory='4G'),
    Work('mariadb-queries', 'mariadb', 900, 'mariadb.sh alias comments count_distinct cte_recursive derived'
         ' distinct endspace fulltext group_by having join join_cache key limit olap order_by parser'
         ' precedence range select subselect union win', memory='4G'),
    Work('mariadb-tables', 'mariadb', 900, 'mariadb.sh alter_table auto_increment bulk_replace create delete'
         ' insert lock ps sp stat_tables trigger truncate update innodb.innodb innodb.innodb-lock',
         memory='4G'),
    Work('stress-cpu', 'tools', 900, 'stress_ng.sh cpu cpu-cache', native=False),
    Work('stress-memory', 'tools', 900, 'stress_ng.sh memory vm', native=False),
    Work('stress-system', 'tools', 900, 'stress_ng.sh os', native=False),
    Work('stress-scheduler', 'tools', 900, 'stress_ng.sh interrupt scheduler', native=False),
    Work('stress-files', 'tools', 900, 'stress_ng.sh filesystem io', native=False),
    Work('stress-network', 'tools', 900, 'stress_ng.sh pipe network', native=False),
    Work('kernel-keys', 'kernel', 300, 'kernel_keys.sh', native=False, kernel='generic'),
    Work('kernel-ftrace', 'kernel', 600, 'kernel_ftrace.sh', native=False, kernel='generic'),
    Work('kernel-probes', 'trace', 600, 'kernel_probes.sh', native=False, kernel='generic'),
    Work('kernel-bpf', 'trace', 900, 'kernel_bpf.sh', native=False, kernel='generic'),
    Work('kernel-modules', 'kernel', 600, 'kernel_modules.sh', native=False, kernel='generic'),
    Work('kernel-crypto', 'kernel', 1200, 'kernel_crypto.sh', native=False, kernel='generic'),
    Work('kernel-storage', 'kernel', 900, 'kernel_storage.sh', native=False, kernel='generic'),
    Work('kernel-network', 'kernel', 600, 'kernel_network.sh', native=False, kernel='generic'),
]

UNSHARE = ['unshare'] + ([] if os.geteuid() == 0 else ['--map-root-user'])

# Stalls are what a busy host makes of a guest, unless they last.
KERNEL_OPTIONS = ('console=ttyS0 panic=-1 mitigations=off sysctl.kernel.watchdog_thresh=60'
                  ' rcupdate.rcu_cpu_stall_timeout=300')

# What a kernel says when something is wrong with it or its processor; programs write to the console, too.
COMPLAINTS = re.compile(r'\[ *\d+\.\d+\] .*(?:\bBUG\b|WARNING|Oops|Call Trace|soft lockup|rcu:.*stall|general protection|'
                        r'invalid opcode|divide error|double fault|Kernel panic)')


def say(text):
    print(f'guest_work: {text}', file=sys.stderr, flush=True)


def die_with_us():
    """In a child before it executes: whatever ends this program ends it, too."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def apt(archives, *arguments, **more):
    """apt-get as if nothing were installed, with the host's lists and a folder for packages."""
    folder = f'{cache}/work/apt'
    os.makedirs(f'{folder}/{archives}/partial', exist_ok=True)
    open(f'{folder}/status', 'a').close()
    command = ['apt-get', '-q', '-y', '--no-install-recommends', '-o', f'Dir::State::status={folder}/status',
               '-o', f'Dir::Cache::archives={folder}/{archives}', '-o', 'Debug::NoLocking=1']
    if os.geteuid() == 0:
        command += ['-o', 'APT::Sandbox::User=root']
    return subprocess.run([*command, *arguments], check=True, stdout=subprocess.PIPE, text=True,
                          **more).stdout


def guest_kernel(kind):
    """The kernel's file and the folder of its modules."""
    folder = subprocess.run([f'{here}/guest.sh', kind], check=True, stdout=subprocess.PIPE,
                            text=True).stdout.strip()
    package = next(f for f in os.listdir(folder) if f.startswith('linux-image-'))
    return f'{folder}/vmlinuz', f'{folder}/{package}/lib/modules'


def digest(words, paths):
    """Words, and names and contents of files and of folders, as a short word."""
    h = hashlib.sha256(words.encode())
    for path in paths:
        files = [path] if os.path.isfile(path) else sorted(
            os.path.join(top, f) for top, _, names in os.walk(path) for f in names)
        for f in files:
            h.update(os.path.relpath(f, path).encode() + open(f, 'rb').read())
    return h.hexdigest()[:16]


def processor_time():
    """Seconds that all children so far have computed."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def read(path):
    """A file's text, none if there is no such file."""
    return open(path, errors='replace').read() if os.path.exists(path) else ''


def pack(folder, target):
    """A folder as an initramfs."""
    with open(target + '.part', 'wb') as out:
        subprocess.run('find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0', shell=True,
                       cwd=folder, check=True, stdout=out)
    os.rename(target + '.part', target)


def image(name, kernel):
    """The folder of a set of packages: its "root" and "initramfs.cpio"; made where it is missing."""
    packages = f'{BASE} {IMAGES[name]}'.split()
    modules = guest_kernel(kernel)[1] if name in WITH_MODULES else None
    folder = f'{cache}/work/{name}'
    made_of = f'{packages} {modules} {NO_MODULES if modules else None}'
    if os.path.exists(f'{folder}/made-of') and open(f'{folder}/made-of').read() == made_of:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    say(f'making {folder}')
    root = f'{folder}/root'
    for place in ('bin', 'sbin', 'lib', 'lib64'):
        os.makedirs(f'{root}/usr/{place}')
        os.symlink(f'usr/{place}', f'{root}/{place}')
    for place in ('dev', 'proc', 'sys', 'tmp', 'work', 'root', 'run'):
        os.mkdir(f'{root}/{place}')
    # Only what is not there yet has its name printed.
    files = re.findall(r"^'.*' (\S+) \d+", apt('none', '--print-uris', 'install', *packages), re.M)
    apt('archives', '--download-only', 'install', *packages)
    for file in files:
        with subprocess.Popen(['dpkg-deb', '--fsys-tarfile', f'{cache}/work/apt/archives/{file}'],
                              stdout=subprocess.PIPE) as archive:
            subprocess.run(['tar', '-x', '-C', root, '--keep-directory-symlink', '--no-same-owner',
                            '--exclude=./usr/share/doc', '--exclude=./usr/share/man',
                            '--exclude=./usr/share/locale', '--exclude=./usr/share/info'],
                           stdin=archive.stdout, check=True)
    # What the packages' own scripts would have done.
    for file in ('passwd', 'group'):
        shutil.copy(f'{root}/usr/share/base-passwd/{file}.master', f'{root}/etc/{file}')
    with open(f'{root}/etc/hosts', 'w') as hosts:
        hosts.write('127.0.0.1 localhost\n::1 localhost\n')
    if not os.path.exists(f'{root}/usr/bin/awk'):
        os.symlink('mawk', f'{root}/usr/bin/awk')
    if modules:
        shutil.copytree(modules, f'{root}/usr/lib/modules', symlinks=True, dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns(*NO_MODULES))
        for release in os.listdir(modules):
            subprocess.run(UNSHARE + ['--mount', 'chroot', root, '/usr/sbin/depmod', release], check=True)
    pack(root, f'{folder}/initramfs.cpio')
    with open(f'{folder}/made-of', 'w') as out:
        out.write(made_of)
    return folder


def overlay(folder):
    """Everything of ours in a guest, and on the host: the scripts, and sources to compile."""
    shutil.copytree(scripts, f'{folder}/work')
    for part in ('src', 'include'):
        shutil.copytree(f'{here}/../{part}', f'{folder}/work/source/{part}')
    shutil.copy(f'{scripts}/init.sh', f'{folder}/init')
    os.chmod(f'{folder}/init', 0o755)


class Result:
    """What a workload printed, and seconds of its processors. status is None if it did not end."""

    def __init__(self, text, seconds):
        self.seconds = seconds
        text = text.replace('\r', '')
        self.times = {n: float(s) for n, s in re.findall(r'^@time (\S+) ([\d.]+)$', text, re.M)}
        end = re.search(r'^@end (\d+) ([\d.]+)$', text, re.M)
        self.status = int(end[1]) if end else None
        if end:
            self.times['all'] = float(end[2])
        self.output = re.sub(r'^@.*\n', '', text, flags=re.M)


NATIVE = '''
set -e
mount --make-rprivate /
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/state" "$1/root"
mount -t overlay -o "lowerdir=$2:$3,upperdir=$1/upper,workdir=$1/state" none "$1/root"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs -o mode=1777 none "$1/root/dev/shm"
mount -t tmpfs -o mode=1777 none "$1/root/tmp"
mount -t proc proc "$1/root/proc"
shift 3
exec "$@"
'''


def run_native(work, cpus):
    """The workload on the host, or what is known of it."""
    folder = image(work.image, work.kernel)
    script = f'{ours}/work/{work.command.split()[0]}'
    used = re.findall(r'/work/\w[\w./]*', open(script).read())  # files that the script names
    used = [f'{ours}{name}' for name in used if os.path.exists(f'{ours}{name}')]
    key = digest(work.command, [f'{folder}/made-of', f'{ours}/work/workload.sh', script, *used])
    kept = f'{cache}/work/native/{work.name}-{cpus}-{key}'
    if not os.path.exists(kept):
        os.makedirs(f'{cache}/work/native', exist_ok=True)
        top, out = f'{logs}/native', f'{logs}/{work.name}-{cpus}.host'
        os.makedirs(top, exist_ok=True)
        command = UNSHARE + ['--mount', '--pid', '--net', '--ipc', '--fork', '--kill-child', 'sh', '-c',
                             NATIVE, 'sh', top, ours, f'{folder}/root', 'taskset', '-c',
                             f'0-{cpus - 1}', 'chroot', f'{top}/root', '/usr/bin/env', '-i', '/bin/bash',
                             '/work/session.sh', str(work.limit * a.times), *work.command.split()]
        before = processor_time()
        with open(out, 'wb') as stdout, open(out + '.log', 'wb') as log:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=log,
                           preexec_fn=die_with_us)
        seconds = processor_time() - before
        if Result(read(out), seconds).status is None:
            return Result('', seconds)
        with open(out, 'a') as more:
            more.write(f'@processor {seconds:.2f}\n')
        shutil.copy(out, kept)
    text = read(kept)
    return Result(text, float(re.search(r'^@processor (.*)$', text, re.M)[1]))


def run_guest(work, cpus):
    """The workload in a guest: its result, the console, and trapeze's status."""
    folder = image(work.image, work.kernel)
    kernel = guest_kernel(work.kernel)[0]
    name = f'{logs}/{work.name}-{cpus}'
    limit = work.limit * a.times
    command = [a.trapeze, 'run', '--engine', a.engine, '--cpus', str(cpus), '-m', work.memory,
               '--kernel', kernel, '--initrd', f'{folder}/initramfs.cpio,{logs}/overlay.cpio',
               '--serial', f'file:path={name}.console', '--serial', f'file:path={name}.guest',
               '--append', f'{KERNEL_OPTIONS} -- {limit} {work.command}',
               '--no-reboot'] + a.options
    before = processor_time()
    with open(f'{name}.log', 'wb') as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   preexec_fn=die_with_us)
        try:
            process.wait(limit + 120 * a.times)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    result = Result(read(f'{name}.guest'), processor_time() - before)
    return result, read(f'{name}.console'), process.returncode


def judge(work, cpus, host, guest, console, exit_status):
    """Words for the table, none if all is well; differences go to a file."""
    words = []
    if guest.status is None:
        words.append(f'no end (trapeze: {exit_status})')
    elif guest.status == 124:
        words.append('timeout')
    elif guest.status != 0:
        words.append(f'status {guest.status}')
    if host and host.status != 0:
        words.append('host: no end' if host.status is None else f'host: status {host.status}')
    elif host and guest.status is not None and host.output != guest.output:
        lines = list(difflib.unified_diff(host.output.splitlines(), guest.output.splitlines(),
                                          'host', 'guest', lineterm='', n=1))
        with open(f'{logs}/{work.name}-{cpus}.diff', 'w') as out:
            out.write('\n'.join(lines) + '\n')
        words.append(f'{len(lines)} lines of difference')
    complaints = [line.strip() for line in console.splitlines() if COMPLAINTS.search(line)]
    if complaints:
        words.append(f'kernel: {complaints[0]}')
    return words


def main():
    failed = 0
    rows = []
    print('| work | vCPUs | result | host, s | guest, s | ratio | parts > 5 times the host\'s time |')
    print('| --- | --- | --- | --- | --- | --- | --- |')
    for work in chosen:
        for cpus in a.cpus:
            host = run_native(work, cpus) if work.native and not a.no_native else None
            guest, console, exit_status = run_guest(work, cpus)
            words = judge(work, cpus, host, guest, console, exit_status)
            failed += bool(words)
            slow = []
            figures = f'| {guest.seconds:.1f} |'
            if host and host.status is not None:
                figures = f'{host.seconds:.1f} | {guest.seconds:.1f} | {guest.seconds / host.seconds:.1f}'
                slow = [f'{part} {s / host.times[part]:.1f}' for part, s in guest.times.items()
                        if s > 1 and host.times.get(part) and s > 5 * host.times[part]]
            print(f'| {work.name} | {cpus} | {"; ".join(words) or "pass"} | {figures} |'
                  f' {", ".join(slow)} |', flush=True)
            rows.append({'name': work.name, 'cpus': cpus, 'passed': not words, 'words': words,
                         'guest': [guest.seconds, guest.times],
                         'host': [host.seconds, host.times] if host else None})
    if a.json:
        with open(a.json, 'w') as out:
            json.dump({'engine': a.engine, 'results': rows}, out, indent=1)
    print(f'{len(rows) - failed} passed, {failed} failed; consoles and outputs: {logs}')
    return failed != 0


ap = argparse.ArgumentParser()
ap.add_argument('--trapeze', default=os.path.join(here, '../build/trapeze'))
ap.add_argument('--engine', default='translator')
ap.add_argument('--cpus', default='1,2', type=lambda text: [int(n) for n in text.split(',')])
ap.add_argument('--only', default='', help='names of workloads, or how these begin')
ap.add_argument('--times', default=1, type=int)
ap.add_argument('--json')
ap.add_argument('--list', action='store_true')
ap.add_argument('--no-native', action='store_true', help='judge by exit statuses alone')
ap.add_argument('options', nargs='*')
a = ap.parse_args()
chosen = [w for w in WORK if not a.only or any(w.name.startswith(n) for n in a.only.split(','))]
if a.list:
    for w in chosen:
        print(f'{w.name:16} {w.image:9} {w.limit:5} s  {w.command}')
    sys.exit(0)
logs = tempfile.mkdtemp(prefix='guest-work.')
ours = f'{logs}/overlay'
overlay(ours)
pack(ours, f'{logs}/overlay.cpio')
sys.exit(main())
