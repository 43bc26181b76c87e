# A short front for meson, ninja and tools/. "make" alone lists the targets.
export TRAPEZE_JOBS ?= $(shell nproc)

help:    ## list the targets
	@sed -n 's/^\([a-z-]*\): .*## /\1	/p' $(MAKEFILE_LIST)
demo: build ## get a Debian kernel and boot it here, to a shell on a terminal
	@tools/demo.sh
build: ## compile build/trapeze
	@tools/setup.sh build
	@tools/build.sh build
check: ## build every variant and run every test
	@tools/setup.sh build check
	@tools/check.sh
bench: build ## compare with the processor itself and with QEMU
	@tools/setup.sh bench
	@tools/bench.sh
fuzz: ## run every fuzz target for FUZZ_SECONDS (600) each
	@tools/setup.sh build check
	@tools/fuzz.sh
fuzz-cpu: build ## compare the interpreter with the processor: FUZZ_CPU_COUNT (5000000) instances
	@build/tests/differential/differential -k -n $${FUZZ_CPU_COUNT:-5000000} -s time
format: ## run clang-format over the sources
	@tools/format.sh
setup: ## install all Debian packages that are missing
	@tools/setup.sh
clean: ## remove what the build made
	@rm -rf build build-*

.PHONY: help demo build check bench fuzz fuzz-cpu format setup clean
