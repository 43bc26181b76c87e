#!/usr/bin/env python3
"""Runs the x86 kvm-unit-tests, built elsewhere, under trapeze's engines and QEMU's TCG, side by side.

    kvm_unit_tests.py DIR [--trapeze PROGRAM] [--engines LIST] [--only NAME,...] [--timeout S]

DIR is a checkout of kvm-unit-tests after "./configure --arch=x86_64 && make". A test's files,
arguments and processors come from its x86/unittests.cfg, and for QEMU its processor model, with
"max" for "host"; trapeze's "max" gets the same features added or taken away. Tests that need KVM's
hypercalls or an AMD processor otherwise are told that they run on hardware (TEST_DEVICE=0). LIST names the columns of the table: engines, and "qemu". The table goes to
standard output, one test a line; the consoles go to a folder that is named at the end.
"""
import argparse
import os
import re
import shlex
import subprocess
import tempfile

ap = argparse.ArgumentParser()
ap.add_argument('dir')
ap.add_argument('--trapeze', default=os.path.join(os.path.dirname(__file__), '../build/trapeze'))
ap.add_argument('--engines', default='interpreter,translator,qemu')
ap.add_argument('--only', default='')
ap.add_argument('--timeout', type=int, default=120)
a = ap.parse_args()


def sections():
    """The tests of unittests.cfg: dicts with name, file, smp, args, arch."""
    test = None
    for line in open(os.path.join(a.dir, 'x86/unittests.cfg')):
        line = line.split('#')[0].strip()
        m = re.match(r'\[(.*)\]', line)
        if m:
            if test:
                yield test
            test = {'name': m[1], 'smp': '1'}
        elif test is not None and '=' in line:
            key, value = line.split('=', 1)
            test[key.strip()] = value.strip()
    if test:
        yield test


# Tests with TEST_DEVICE=0 in their environment, and features that a test's processor may differ in.
ON_HARDWARE = ('x2apic', 'xapic', 'syscall')
FEATURES = ('x2apic', 'pcid', 'invpcid')


def words_of(test):
    """The options that the test gives to QEMU."""
    return shlex.split(test.get('qemu_params', test.get('extra_params', '')))


def option(test, name, default):
    words = words_of(test)
    return words[words.index(name) + 1] if name in words else default


def arguments(test):
    """The guest's command line: test_args, or -append in the options for QEMU."""
    if 'test_args' in test:
        return test['test_args'].strip("'\"")
    return option(test, '-append', '')


def environment(test):
    """A file of variables, which the tests take as their initial RAM disk."""
    if test['name'] not in ON_HARDWARE:
        return None
    path = f'{logs}/environment'
    with open(path, 'w') as out:
        out.write('TEST_DEVICE=0\n')
    return path


def trapeze_command(test, engine, kernel, smp):
    memory = option(test, '-m', '256M')
    if memory[-1] in '0123456789':
        memory += 'M'
    features = [f for f in option(test, '-cpu', '').split(',') if f[1:] in FEATURES]
    command = [a.trapeze, 'run', '--engine', engine, '--kernel', kernel,
               '--append', arguments(test), '-m', memory.upper(), '--cpus', smp,
               '--cpu', ','.join(['max'] + features), '--debugcon', 'null',
               '--device', 'pc-testdev']
    return command + (['--initrd', environment(test)] if environment(test) else [])


def qemu_command(test, kernel, smp):
    cpu = option(test, '-cpu', 'qemu64').split(',')
    if cpu[0] == 'host':
        cpu = ['max']
    command = ['qemu-system-x86_64', '-accel', 'tcg', '-cpu', ','.join(cpu), '-nodefaults',
               '-display', 'none', '-serial', 'stdio', '-no-reboot', '-smp', smp,
               '-m', option(test, '-m', '256M'), '-device', 'pc-testdev',
               '-device', 'isa-debug-exit,iobase=0xf4,iosize=4',
               '-kernel', kernel, '-append', arguments(test)]
    return command + (['-initrd', environment(test)] if environment(test) else [])


def outcome(status, text):
    """What a console says: the tests' own summary, or how the run ended."""
    summary = re.findall(r'SUMMARY: (\d+ tests.*)', text)
    if status is None:
        return 'timeout'
    if re.search(r'^(qemu-system-x86_64|trapeze run): (?!warning)', text, re.M):
        return 'skip (does not start)'  # status 1, which a test that passes has too
    if status == 1:
        return 'pass' + (f' ({summary[-1]})' if summary else '')
    if status == 77 * 2 + 1 or (summary and 'unexpected' not in summary[-1]):
        return f'skip ({summary[-1]})' if summary else 'skip'
    return f'FAIL ({summary[-1]})' if summary else f'FAIL (status {status})'


def run(command, log):
    with open(log, 'wb') as out:
        try:
            status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out,
                                    stderr=subprocess.STDOUT, timeout=a.timeout).returncode
        except subprocess.TimeoutExpired:
            status = None
    return outcome(status, open(log, errors='replace').read())


logs = tempfile.mkdtemp(prefix='kvm-unit-tests.')
engines = a.engines.split(',')
totals = {engine: {} for engine in engines}
print('| test | ' + ' | '.join(engines) + ' |\n|' + ' --- |' * (len(engines) + 1))
for t in sections():
    if t.get('arch') == 'i386' or (a.only and t['name'] not in a.only.split(',')):
        continue
    kernel = os.path.join(a.dir, 'x86', t['file'])
    if not os.path.exists(kernel):
        continue
    smp = re.sub(r'\D.*', '', t['smp']) or '2'
    results = []
    for engine in engines:
        command = (qemu_command(t, kernel, smp) if engine == 'qemu' else
                   trapeze_command(t, engine, kernel, smp))
        result = run(command, f'{logs}/{t["name"]}.{engine}')
        results.append(result)
        word = result.split()[0]
        totals[engine][word] = totals[engine].get(word, 0) + 1
    print(f'| {t["name"]} | ' + ' | '.join(results) + ' |', flush=True)
for engine in engines:
    print(f'{engine}: ' + ', '.join(f'{n} {word}' for word, n in sorted(totals[engine].items())))
print(f'consoles: {logs}')
