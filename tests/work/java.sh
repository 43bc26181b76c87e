#!/bin/bash
# java.sh: HotSpot: compiling itself, both compilers, each collector, many safepoints

PATH=/usr/lib/jvm/java-17-openjdk-amd64/bin:$PATH
export JAVA_TOOL_OPTIONS="-Xmx512m -Xshare:auto"
part javac javac -d . /work/Work.java
for options in "" -Xint -XX:TieredStopAtLevel=1 '-Xcomp -XX:CompileOnly=Work' -XX:+UseParallelGC -XX:+UseG1GC -XX:+UseZGC \
    -XX:+UseShenandoahGC "-XX:+UnlockDiagnosticVMOptions -XX:GuaranteedSafepointInterval=5"; do
    scale=4
    case $options in -Xint | -Xcomp*) scale=1 ;; esac
    # shellcheck disable=SC2086 # options are words
    part "java${options##*:}" java $options Work $scale
done
