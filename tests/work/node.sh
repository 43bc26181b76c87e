#!/bin/bash
# node.sh: V8: just-in-time code that is made, specialised, thrown away and made again; WebAssembly; workers

for mode in "" --no-opt --jitless --always-sparkplug --interrupt-budget=1000; do
    # shellcheck disable=SC2086 # none or one word
    part "node$mode" node $mode /work/node.js $mode
done
