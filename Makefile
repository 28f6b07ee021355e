# `make run` and `make test` each work alone on a bare Debian machine with Rust and gcc.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
DIST := $(or $(CARGO_TARGET_DIR),target)/dist
# Options of run.py: `make bench BENCH_FLAGS=--enforce` fails over the limit.
BENCH_FLAGS ?=
MEASURED := --tidegate $(DIST)/tidegate --bare $(DIST)/examples/bare_pingora --upstream $(DIST)/examples/bench_upstream
VENV := target/e2e-venv
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help build run check units test e2e observatory bench fuzz deps test-deps e2e-deps bench-deps deny

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: deps ## Build the program: target/release/tidegate
	$(CARGO) build --release --locked

run: deps ## Build and start the demo: a chat app behind the gate on http://127.0.0.1:8080
	$(CARGO) run --release --locked -- demo

check: deps deny units ## Formatting, lints, docs, licences and advisories, systemd units
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	$(CARGO) deny --all-features check --hide-inclusion-graph licenses bans sources
	@# The advisories live in a git repository, which an offline machine can't fetch: said aloud, and no pass.
	@if $(CARGO) deny fetch db >/dev/null 2>&1; then $(CARGO) deny --all-features check advisories; \
	else echo "NOT CHECKED: advisories (the RustSec database is out of reach; run 'cargo deny check advisories' online)"; fi

test: deps test-deps ## Unit tests and black-box tests
	$(CARGO) test --locked

e2e: deps e2e-deps $(VENV)/ready ## Real clients: official SDKs, curl and slowhttptest against the real program
	$(CARGO) build --locked
	$(VENV)/bin/python -m pytest -q tests/e2e

# Without install scripts: the package's own download lists that are not needed here.
observatory: deps ## The demo behind TLS, graded by MDN's HTTP Observatory: A+ or failure (needs Node 20 and openssl)
	$(CARGO) build --locked
	npm ci --ignore-scripts --no-audit --no-fund --prefix tests/e2e/observatory
	tests/e2e/observatory/run.sh $(or $(CARGO_TARGET_DIR),target)/debug/tidegate

bench: deps test-deps bench-deps ## Side by side: tidegate, bare Pingora, nginx, ModSecurity; then the parts alone
	$(CARGO) build --locked --profile dist --bin tidegate --example bare_pingora --example bench_upstream
	python3 -m unittest discover -s benches/side_by_side
	python3 benches/side_by_side/run.py $(MEASURED) $(BENCH_FLAGS)
	python3 benches/side_by_side/instructions.py $(MEASURED)
	$(CARGO) bench --locked --profile dist

fuzz: deps ## JSON against serde_json, multipart against multer, sanitizing against html5ever, forms against the WHATWG
	SCANNER_CASES=1000000 $(CARGO) test --locked --release --lib json
	MULTIPART_CASES=250000 $(CARGO) test --locked --release --lib multipart
	SANITIZER_CASES=100000 $(CARGO) test --locked --release --lib sanitize
	PROPTEST_CASES=100000 $(CARGO) test --locked --release --lib -- guard::form guard::body

# The program is not installed here, and systemd looks for it.
units: UNITS := target/units
units: ## The systemd units: sound, and exposed by no more than 2.0 of 10
	@command -v systemd-analyze >/dev/null || { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends systemd; }
	@mkdir -p $(UNITS)
	@for unit in systemd/*; do sed 's|/usr/local/bin/tidegate|/bin/true|' $$unit > $(UNITS)/$${unit#*/}; done
	systemd-analyze verify $(UNITS)/tidegate.service $(UNITS)/tidegate.socket
	systemd-analyze security --offline=true --threshold=20 $(UNITS)/tidegate.service | tail -1

# Pingora builds zlib-ng with cmake; a C compiler and curl are the others that a bare machine may lack.
deps:
	@missing=(); \
	command -v cmake >/dev/null || missing+=(cmake); \
	command -v cc >/dev/null || missing+=(gcc libc6-dev); \
	command -v curl >/dev/null || missing+=(curl); \
	if [ $${#missing[@]} -gt 0 ]; then \
	  echo "installing $${missing[*]}"; \
	  $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends "$${missing[@]}"; \
	fi

# Real servers for the tests of the shared store; each test starts its own.
test-deps:
	@command -v redis-server >/dev/null && command -v redis-sentinel >/dev/null || { $(SUDO) apt-get update -qq && $(SUDO) env RUNLEVEL=1 apt-get install -y -qq --no-install-recommends redis-server redis-sentinel; }

e2e-deps:
	@command -v slowhttptest >/dev/null || { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends slowhttptest; }

bench-deps:
	@missing=(); \
	command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing+=(nginx-light); \
	command -v wrk >/dev/null || missing+=(wrk); \
	command -v valgrind >/dev/null || missing+=(valgrind); \
	command -v h2load >/dev/null || missing+=(nghttp2-client); \
	[ -e /usr/lib/nginx/modules/ngx_http_modsecurity_module.so ] || missing+=(libnginx-mod-http-modsecurity); \
	[ -d /usr/share/modsecurity-crs/rules ] || missing+=(modsecurity-crs); \
	command -v taskset >/dev/null || missing+=(util-linux); \
	command -v python3 >/dev/null || missing+=(python3); \
	if [ $${#missing[@]} -gt 0 ]; then \
	  echo "installing $${missing[*]}"; \
	  $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends "$${missing[@]}"; \
	fi

deny:
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked --version 0.20.2

$(VENV)/ready: tests/e2e/requirements.txt
	python3 -m venv $(VENV) || { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq python3-venv && python3 -m venv $(VENV); }
	$(VENV)/bin/pip install -q -r tests/e2e/requirements.txt
	touch $@
