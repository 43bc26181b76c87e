#!/bin/bash
# go.sh: the tests of Go's own library, compiled in the guest: preemption by signals, collector, atomics

export GOROOT=/usr/lib/go-1.19 GOCACHE=/tmp/cache GOPATH=/tmp/path GOFLAGS=-count=1 GO111MODULE=off CGO_ENABLED=0
PATH=$GOROOT/bin:$PATH
cd "$GOROOT/src" || exit 1
run() {
    go test -short "$1" >/tmp/log 2>&1 && return
    cat /tmp/log >&2
    grep -- '--- FAIL' /tmp/log | sed 's/ (.*//' | sort
    return 1
}
for package in sort strconv unicode/utf8 bytes strings bufio container/heap math math/bits math/big math/rand \
    encoding/json encoding/gob encoding/base64 regexp reflect sync sync/atomic context time os/signal \
    crypto/aes crypto/sha256 crypto/sha512 crypto/md5 crypto/ed25519 crypto/elliptic hash/crc32 hash/maphash \
    compress/flate text/template go/parser go/scanner index/suffixarray internal/bytealg runtime/internal/atomic; do
    part "$package" run "$package"
done
