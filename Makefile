# A thin front for Meson.  `make help` lists the targets.
BUILD := build
PY    := /usr/bin/python3
B     ?= boot
T     ?= all
PREFIX ?= /usr

.PHONY: help deps build check test bench lab asan fuzz lint fmt demo images install clean
help: ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

deps: ## install the packages that building and testing need (root)
	@tools/deps.sh test

$(BUILD)/build.ninja:
	@tools/deps.sh build
	meson setup $(BUILD) --buildtype=release -Doptimization=2 -Db_lto=true >/dev/null

build: $(BUILD)/build.ninja ## compile everything into build/
	ninja -C $(BUILD)

images: build ## build the starter images as OCI layouts in build/images
	images/build $(BUILD)/images

check: build ## unit tests: no root, under 30 s
	@tools/deps.sh test
	$(PY) tests/run --build $(BUILD) unit

test: ## install, build, run every test (root)
	@tools/deps.sh test
	$(MAKE) build
	$(MAKE) images
	$(PY) tests/run --build $(BUILD) all

bench: ## measure and compare: make bench B=boot
	@tools/deps.sh bench
	$(MAKE) build images
	$(PY) tests/bench/run --build $(BUILD) $(B)

lab: build ## the product in virtual machines with a fresh Debian 12's kernel (root)
	@tools/deps.sh lab
	images/build $(BUILD)/images starter
	tests/lab/run --build $(BUILD)

asan: ## unit and flow tests under ASan and UBSan
	@tools/deps.sh test
	[ -f $(BUILD)-asan/build.ninja ] || meson setup $(BUILD)-asan --buildtype=debug -Db_sanitize=address,undefined -Db_lundef=false >/dev/null
	ninja -C $(BUILD)-asan
	images/build $(BUILD)-asan/images
	$(PY) tests/run --build $(BUILD)-asan unit flow

fuzz: ## libFuzzer targets: make fuzz T=name (30 s each)
	@tools/deps.sh test
	tests/fuzz/run $(T)

lint: ## layers, banned functions, cppcheck, shell
	$(PY) tools/lint.py

fmt: ## format the C sources
	git ls-files '*.c' '*.h' | xargs clang-format -i

demo: ## from nothing to a running cluster and back (root)
	@tools/deps.sh build
	$(MAKE) build
	tools/demo

install: build ## install programs, manual pages, completion and service (PREFIX=/usr, DESTDIR=)
	meson configure $(BUILD) --prefix=$(PREFIX) --sysconfdir=/etc
	meson install -C $(BUILD)

clean:
	rm -rf $(BUILD) $(BUILD)-asan
