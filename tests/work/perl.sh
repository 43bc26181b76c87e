#!/bin/bash
# perl.sh: hashes, regular expressions, sorting, large integers, digests

part perl perl /work/perl.pl
