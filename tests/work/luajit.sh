#!/bin/bash
# luajit.sh: the trace compiler with its optimisations, without, and often starting anew

for options in "" -O0 -O1 "-Ohotloop=2 -Ohotexit=1" "-Omaxtrace=20 -Omaxmcode=64" -joff; do
    # shellcheck disable=SC2086 # options are words
    part "luajit$(echo "$options" | tr -d ' =')" luajit $options /work/luajit.lua
done
