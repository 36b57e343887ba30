# Every line is one or two cargo calls. Where a target cannot run on this machine it says what is missing and fails, or
# (interop, examples) lists each part it skips. The build is two calls so that feature unification never gives the
# executor a compiler.

CARGO ?= cargo
BIN = $${CARGO_TARGET_DIR:-target}/debug
ALL_BUT_COMPILER = --workspace --exclude executor-compiler
export MENTAT_VECTORS ?= $(abspath ../shared/vectors)

.PHONY: build demo up test check deny journeys adversarial conformance interop crash fuzz-smoke bench \
        bench-log bench-log-large bench-ca bench-verify bench-exec bench-tlog examples toolchains help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

build: ## everything, debug profile
	$(CARGO) build $(ALL_BUT_COMPILER)
	$(CARGO) build -p executor-compiler

demo: build ## the whole path and every refusal, on loopback, in a temporary folder
	$(BIN)/mentatctl demo

up: build ## the same stack, persistent: make up DIR=folder [PORT_BASE=n]
	$(BIN)/mentatctl up --dir "$${DIR:?say where: make up DIR=folder}" $${PORT_BASE:+--port-base "$$PORT_BASE"}

test: build ## all that needs only Rust and a C compiler
	$(CARGO) test $(ALL_BUT_COMPILER)
	$(CARGO) test -p executor-compiler

check: ## formatting, clippy, documentation, licences and bans
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy $(ALL_BUT_COMPILER) --all-targets -- -D warnings
	$(CARGO) clippy -p executor-compiler --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps $(ALL_BUT_COMPILER) --document-private-items
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps -p executor-compiler --document-private-items
	@$(MAKE) --no-print-directory deny

deny: ## licences, bans and sources
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check bans licenses sources; \
	else echo "SKIPPED: cargo-deny is not installed (cargo install --locked cargo-deny); the same lists are checked over cargo metadata instead:"; \
	  $(CARGO) test -q -p mentat-tests --test architecture; fi

journeys: build ## developer, CI, executor and auditor, and the split form over TLS
	$(CARGO) test -p mentat-tests --test journeys -- --nocapture

adversarial: build ## each forged or missing item alone is denied with its own code
	$(CARGO) test -p mentat-tests --test adversarial
	$(CARGO) test -p trust-store

conformance: build ## third-party vectors, and the conformance door over stdin
	@test -d "$$MENTAT_VECTORS" || { echo "MISSING: third-party vectors; set MENTAT_VECTORS to their folder (looked in $$MENTAT_VECTORS)"; exit 1; }
	CI=true $(CARGO) test -p trust-store -p tlog
	CI=true $(CARGO) test -p mentat-tests --test conformance

crash: build ## SIGKILL to each server while it works, then a restart: nothing acknowledged is lost
	$(CARGO) test -p mentat-tests --test crash -- --nocapture
	$(CARGO) test -p log-store
	MENTAT_POWER=1 $(CARGO) test -p mentat-tests --test power -- --nocapture --test-threads=1

interop: build ## other people's programs against a running stack; each missing one is named and counted
	$(CARGO) test -p mentat-tests --test interop -- --nocapture

fuzz-smoke: ## every fuzz target for ten seconds
	@test -d tests/fuzz/fuzz_targets || { echo "MISSING: tests/fuzz has no targets"; exit 1; }
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { echo "MISSING: a nightly toolchain and cargo-fuzz (rustup toolchain install nightly; cargo install --locked cargo-fuzz)"; exit 1; }
	@for target in $$(cd tests/fuzz/fuzz_targets && ls *.rs | sed 's/\.rs$$//'); do \
	  $(CARGO) +nightly fuzz run --fuzz-dir tests/fuzz $$target -- -max_total_time=10 || exit 1; done

bench: bench-log bench-ca bench-verify bench-exec ## every promised figure

# $(call bench,FOLDER,NAME): one bench, or a loud line where it does not exist in this tree. All benches share one selection of
# packages, and so one release build.
bench = @test -f $(1)/benches/$(2).rs || { echo "MISSING: $(1)/benches/$(2).rs: no bench asserts these figures in this tree"; exit 1; }; \
	$(CARGO) bench $(ALL_BUT_COMPILER) --bench $(2)

bench-log: ## the transparency log; writes target/bench/log.json
	$(call bench,transparency-log,log)

bench-log-large: ## the log with ten million entries: some minutes, 12 GB below TMPDIR; adds its figures to log.json
	$(CARGO) bench $(ALL_BUT_COMPILER) --bench log -- large

bench-ca: ## the certificate authority with a log beside it; writes target/bench/ca.json
	$(CARGO) bench $(ALL_BUT_COMPILER) --no-run --bench ca --bench log
	$(call bench,ca-service,ca)

bench-verify: ## the verifier; writes target/bench/verify.json
	$(call bench,trust-store,verify)

bench-exec: ## the executor; writes target/bench/exec.json
	$(CARGO) build --release -p executor-compiler
	$(CARGO) build --release $(ALL_BUT_COMPILER)
	$(call bench,executor,exec)

bench-tlog: ## the Merkle core alone
	$(CARGO) bench $(ALL_BUT_COMPILER) --bench tree

examples: build ## every guest example of the SDKs: built, signed, admitted and run where its toolchain is present
	$(CARGO) test -p mentat-tests --test examples -- --nocapture

toolchains: ## the guest toolchains, on Debian (run as root)
	@command -v apt-get >/dev/null || { echo "MISSING: apt-get; install the packages named in this target by other means"; exit 1; }
	apt-get update && apt-get install -y --no-install-recommends rustc-web cargo-web rust-web-src lld-22 clang-22 libclang-rt-22-dev-wasm32 wasi-libc binaryen
