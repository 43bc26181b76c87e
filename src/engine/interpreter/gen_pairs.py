#!/usr/bin/env python3
"""Writes the handlers of all pairs of pairs.def, and their table: gen_pairs.py pairs.def > pairs_table.h"""
import re
import sys

names = re.findall(r'^PAIR_KIND\((\w+)\)', open(sys.argv[1]).read(), re.M)
print('/* made by gen_pairs.py from pairs.def */')
stores = {'STORE64', 'PUSH64'}  # only as the second: they may overwrite what follows
firsts = [n for n in names if n not in stores]
for a in firsts:
    print(' '.join(f'PAIR({a}, {b})' for b in names))
print('static op_fn *const pair_table[PAIR_KIND_COUNT][PAIR_KIND_COUNT] = {')
for a in firsts:
    print('    [PAIR_%s] = {NULL, %s},' % (a, ', '.join(f'op_pair_{a}_{b}' for b in names)))
print('};')
