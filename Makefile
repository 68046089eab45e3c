# Parley: what a person may want to run. Everything else is CMake (CMakePresets.json).
SHELL := /bin/bash
JOBS := $(shell nproc)
MODEL := models/parley-mini
DEMO := etc/demo

# configure-and-build of one preset: $(call cmake,preset,targets)
cmake = cmake --preset $(1) >/dev/null && \
	cmake --build --preset $(1) -j$(JOBS) $(2) -- --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help setup build demo deb boot-test check parity bench bench-gpu fuzz check-asan \
	check-tsan check-arm64 format lint clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## install the packages for building and checking (Debian 12, Ubuntu 24.04)
	@tools/setup.sh check

build: ## build/parley
	@tools/setup.sh build
	@$(call cmake,release)

demo: ## ask the small model that ships with Parley three spoken questions; answers in out/
	@tools/setup.sh build
	@$(call cmake,release,--target parley)
	@mkdir -p out
	@echo; echo "$(DEMO)/capital.wav asks: What is the capital of France?"
	build/parley ask --model $(MODEL) --in $(DEMO)/capital.wav --out out/capital.wav
	@echo; echo "$(DEMO)/sum.wav and times-two.wav ask: How much is seven plus eight? And times two?"
	build/parley ask --model $(MODEL) --in $(DEMO)/sum.wav --in $(DEMO)/times-two.wav \
	    --out out/sum.wav
	@echo; echo "The answers' sound is in out/capital.wav and out/sum.wav. Your own question:"
	@echo "    build/parley ask --model $(MODEL) --in YOUR.wav --out out/answer.wav"
	@if [ -t 0 ] && [ -t 1 ] && ls /dev/snd/pcmC*c >/dev/null 2>&1; then \
	    read -r -p "Talk to it now, through microphone and loudspeaker? [y/N] " answer; \
	    case $$answer in y*) build/parley talk ;; esac; \
	else \
	    echo "With a microphone, talk to it: build/parley talk"; \
	fi

check: ## everything: build, unit, parity, sanitizers, fuzzing, lint; a table at the end
	@tools/setup.sh check
	@tools/fetch_qwen_vocab.sh || echo "The Qwen vocabulary is not here; its test will be skipped."
	@tools/check.sh release asan tsan fuzz

parity: ## every stage against the reference: a table per shape and stage
	@tools/setup.sh build
	@$(call cmake,release,--target parity)
	@for shape in awkward heads long; do \
	    build/tests/parity tests/golden/$$shape build/parity-$$shape || exit 1; done

bench: ## speed of models with random weights on this machine (SPEED.md)
	@tools/setup.sh build
	@$(call cmake,release,--target parley)
	build/parley bench --synthetic tools/configs/bench-200m.json --seconds 3
	build/parley bench --synthetic tools/configs/bench-30m.json --seconds 3

deb: ## the Debian package: build/parley_VERSION_ARCH.deb
	@tools/setup.sh deb
	@$(call cmake,release,--target parley parleyd)
	@cd build && cpack -G DEB >cpack.log 2>&1 || { cat cpack.log; exit 1; }
	@ls -l build/parley_*.deb

boot-test: ## boot the package in a Debian guest under QEMU and break things there (root; long)
	@tools/setup.sh boot
	@$(MAKE) --no-print-directory deb
	@tests/boot/run build/parley_*.deb build/boot

bench-gpu: ## full size on a GPU: checks, parity, speed beside the reference (SPEED.md)
	tools/gpu_bench

fuzz: ## a short run of every fuzz target
	@tools/setup.sh check
	@tools/check.sh fuzz

check-asan: ## unit and parity under the address and undefined-behaviour sanitizers
	@tools/setup.sh build
	@tools/check.sh asan

check-tsan: ## unit and parity under the thread sanitizer
	@tools/setup.sh build
	@tools/check.sh tsan

check-arm64: ## cross build for 64-bit ARM, unit and parity under qemu
	@tools/setup.sh arm64
	@tools/sysroot.sh
	@tools/check.sh arm64

format: ## lay out every C file with clang-format 14
	@tools/setup.sh check
	@git ls-files -co --exclude-standard '*.c' '*.h' | xargs clang-format-14 -i

lint: ## the rules of the tree: includes, banned calls, sizes, layout
	@tools/setup.sh check
	@tools/lint.py && tools/lint.py --format

clean: ## remove build folders and out/
	rm -rf build build-* out
