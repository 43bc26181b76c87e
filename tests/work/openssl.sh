#!/bin/bash
# openssl.sh: digests, ciphers and key derivations as on the host; signatures and agreements with new keys;
# a short "openssl speed", whose figures are not compared

key=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
iv=0102030405060708090a0b0c0d0e0f10
perl -e 'print pack("L*", map { $_ * 2654435761 } 1 .. 750000)' >data
head -c 5000 data >short

digests() {
    local name
    for name in md5 sha1 sha224 sha256 sha384 sha512 sha512-256 sha3-256 sha3-512 shake256 blake2b512 \
        blake2s256 ripemd160 sm3; do
        echo "$name $(openssl dgst -$name -r data | cut -c1-40)"
    done
}
ciphers() {
    local name
    for name in aes-128-cbc aes-192-ofb aes-256-cbc aes-256-ctr aes-128-ecb aes-256-cfb aria-256-ctr \
        camellia-256-cbc chacha20 des-ede3-cbc sm4-cbc; do
        openssl enc -$name -K $key -iv $iv -in data -out secret 2>/dev/null
        openssl enc -d -$name -K $key -iv $iv -in secret 2>/dev/null | cmp - data || fail $name
        digest $name secret
    done
}
derivations() {
    openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt pass:x -kdfopt salt:abcd -kdfopt iter:50000 PBKDF2
    openssl kdf -keylen 32 -kdfopt pass:x -kdfopt salt:abcd -kdfopt n:4096 -kdfopt r:8 -kdfopt p:1 SCRYPT
    openssl kdf -keylen 32 -kdfopt digest:SHA2-512 -kdfopt key:k -kdfopt info:i HKDF
    openssl mac -cipher AES-256-CBC -macopt hexkey:$key -in data CMAC
    openssl mac -digest SHA256 -macopt hexkey:$key -in data HMAC
    openssl mac -macopt hexkey:$key -in data Poly1305
}
sign() {
    openssl pkey -in key -pubout -out public
    openssl dgst -sha256 -sign key -out signature data
    openssl dgst -sha256 -verify public -signature signature data
    echo x >>data
    openssl dgst -sha256 -verify public -signature signature data 2>/dev/null
    truncate -s -2 data
}
rsa() {
    for bits in 1024 2048 3072; do
        openssl genrsa -out key $bits 2>/dev/null && openssl rsa -in key -check -noout 2>&1
        sign
        openssl pkeyutl -encrypt -pubin -inkey public -in <(head -c 50 data) -out secret &&
            openssl pkeyutl -decrypt -inkey key -in secret | cmp - <(head -c 50 data)
    done
}
curves() {
    for curve in prime256v1 secp384r1 secp521r1 secp256k1 brainpoolP256r1 sect283r1; do
        openssl ecparam -name $curve -genkey -noout -out key
        sign
    done
    for kind in ed25519 ed448; do
        openssl genpkey -algorithm $kind -out key && openssl pkey -in key -pubout -out public
        openssl pkeyutl -sign -inkey key -rawin -in short -out signature
        openssl pkeyutl -verify -pubin -inkey public -rawin -in short -sigfile signature
    done
    for kind in x25519 x448; do
        for who in 1 2; do
            openssl genpkey -algorithm $kind -out key$who && openssl pkey -in key$who -pubout -out public$who
        done
        [ "$(openssl pkeyutl -derive -inkey key1 -peerkey public2 | sha256sum)" = \
            "$(openssl pkeyutl -derive -inkey key2 -peerkey public1 | sha256sum)" ] || fail $kind
    done
}
primes() {
    for bits in 256 512 1024; do
        openssl prime "$(openssl prime -generate -bits $bits)" | sed 's/.* is/is/'
    done
    openssl prime 170141183460469231731687303715884105727 170141183460469231731687303715884105725
}
waiting_for() { # a minute at most
    for _ in $(seq 600); do
        eval "$1" && return
        sleep 0.1
    done
}
tls() { # a server and a client in this guest
    openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out certificate -subj /CN=work 2>/dev/null
    for suite in TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256; do
        openssl s_server -accept 4433 -key key -cert certificate -naccept 1 -rev -quiet >/dev/null 2>&1 &
        waiting_for 'ss -ltn | grep -q :4433'
        : >answer
        { echo 'able was i'; waiting_for '[ -s answer ]'; } | openssl s_client -connect localhost:4433 \
            -ciphersuites $suite -CAfile certificate -verify_return_error -quiet -no_ign_eof >answer 2>/dev/null
        cat answer
        wait
    done
}
speed() {
    openssl speed -seconds 1 -bytes 8192 -evp aes-128-gcm >&2 &&
        openssl speed -seconds 1 -bytes 8192 -evp chacha20-poly1305 >&2 &&
        openssl speed -seconds 1 rsa2048 ecdsap256 >&2
}
for name in digests ciphers derivations rsa curves primes tls; do
    part $name $name
done
speed || fail speed
