#!/bin/bash
# gcc.sh: this project compiled with all processors, at four levels of optimisation

build() {
    rm -rf "$1" && mkdir "$1" || return
    cat >"$1/Makefile" <<'END'
SOURCES := $(shell cd /work/source/src && find base x86 machine devices state -name '*.c' | sort)
OBJECTS := $(subst /,_,$(SOURCES:.c=.o))
all: $(OBJECTS)
define rule
$(subst /,_,$(1:.c=.o)): /work/source/src/$(1)
	gcc $$(FLAGS) -D_GNU_SOURCE -std=gnu11 -w -I/work/source/include -I/work/source/src -c -o $$@ $$<
endef
$(foreach s,$(SOURCES),$(eval $(call rule,$(s))))
END
    make -s -j"$(nproc)" -C "$1" FLAGS="$2"
}

for level in -O0 -Os "-O2 -g" "-O3 -march=x86-64-v3"; do
    name=gcc$(echo "$level" | tr -d ' =')
    part "$name" build "$name" "$level"
    cat "$name"/*.o | digest "$name"
    rm -rf "$name"
done
