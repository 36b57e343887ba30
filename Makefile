# Every line is one or two cargo calls. Where a target cannot run on this machine it says what is missing and fails, or
# (interop, examples) lists each part it skips. The build is two calls so that feature unification never gives the
# executor a compiler.

CARGO ?= cargo
BIN = $${CARGO_TARGET_DIR:-target}/debug
RELEASE = $${CARGO_TARGET_DIR:-target}/release
# More features in everything that is built here, so that what runs them later builds nothing twice: WITH=ca-service/pkcs11.
WITH ?=
# What ships by default: the executor admits and runs, and leaves out the rest (executor/Cargo.toml).
LEAN = --workspace --exclude executor-compiler $(addprefix --features ,$(WITH))
# The same with all of the executor, which is what the suites, the demo and the benches are about. Only `executor` itself differs.
ALL_BUT_COMPILER = $(LEAN) --features executor-server/full
export MENTAT_VECTORS ?= $(abspath ../shared/vectors)
# What the suites skip is collected here and said in the last lines.
SKIPPED = $(CURDIR)/target/skipped.txt

.PHONY: build demo up test check check-backends no-std deny journeys adversarial conformance oracles interop crash fuzz-smoke bench \
        bench-log bench-log-large bench-ca bench-ca-large bench-verify bench-exec bench-stack bench-tlog examples newcomer toolchains interop-programs interop-pkcs11 interop-kms interop-postgres interop-s3 interop-smtp interop-tpm help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

build: ## everything, debug profile
	$(CARGO) build $(ALL_BUT_COMPILER)
	$(CARGO) build -p executor-compiler

demo: build ## the whole path and every refusal, on loopback, in a temporary folder
	$(BIN)/mentatctl demo

up: ## the same stack, persistent: make up DIR=folder [PORT_BASE=n]
	@: "$${DIR:?say where: make up DIR=folder}"
	@$(MAKE) --no-print-directory build
	$(BIN)/mentatctl up --dir "$$DIR" $${PORT_BASE:+--port-base "$$PORT_BASE"}

# The suites mostly wait for servers, clocks and disks: two tests for each processor.
SUITE_THREADS ?= $(shell expr 2 \* $$(nproc))

test: build ## all that needs only Rust and a C compiler
	@mkdir -p target && rm -f $(SKIPPED)
	MENTAT_SKIPPED=$(SKIPPED) $(CARGO) test $(ALL_BUT_COMPILER) --lib --bins
	MENTAT_SKIPPED=$(SKIPPED) RUST_TEST_THREADS=$(SUITE_THREADS) $(CARGO) test $(ALL_BUT_COMPILER) --test '*'
	$(CARGO) test $(LEAN) --lib -- left_out a_build_ each_linker the_version
	$(CARGO) test $(ALL_BUT_COMPILER) --doc
	$(CARGO) test -p executor-compiler
	@test ! -s $(SKIPPED) || { echo "skipped here, each where its program or environment is missing: $$(sort -u $(SKIPPED) | wc -l)"; sort -u $(SKIPPED); }

check: ## formatting, clippy, documentation, licences and bans
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy $(ALL_BUT_COMPILER) --all-targets -- -D warnings
	$(CARGO) clippy --workspace --exclude executor-compiler --lib --bins -- -D warnings
	$(CARGO) clippy -p executor-compiler --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps $(ALL_BUT_COMPILER) --document-private-items
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps -p executor-compiler --document-private-items
	@$(MAKE) --no-print-directory no-std deny

# Of the executor; `make check` has all of them and none.
SINGLE_FEATURES = cedar deployments http-handler media media-s3 pipelines scratch-files sockets telemetry

check-backends: ## clippy over what is behind the features for PostgreSQL, SMTP, tokens, TPMs and key services, and over each feature of the executor alone
	$(CARGO) clippy $(WITH_BACKENDS) --all-targets -- -D warnings
	for feature in $(SINGLE_FEATURES); do $(CARGO) clippy $(LEAN) --lib --bins --features executor-server/$$feature -- -D warnings || exit 1; done

# rustup's toolchain where it has the target, else Debian's, which brings the sources of `core` and `alloc`. With those nothing
# else is built: what needs an operating system does not find `std` at all.
NO_STD = -p trust-store --no-default-features --features rustcrypto --release --target wasm32-unknown-unknown
DEBIAN_RUST = RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Clinker=wasm-ld-22 env -u RUSTUP_TOOLCHAIN -u CARGO /usr/bin/cargo

no-std: ## the verifier without an operating system: its features, and a build for wasm32-unknown-unknown
	$(CARGO) test -q $(ALL_BUT_COMPILER) --test architecture no_std
	@if test -d "$$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown/lib"; then $(CARGO) build $(NO_STD); \
	elif test -d /usr/lib/rustlib/src/rust/library && command -v wasm-ld-22 >/dev/null; then $(DEBIAN_RUST) build $(NO_STD) -Zbuild-std=core,alloc; \
	else echo "SKIPPED: no toolchain for wasm32-unknown-unknown (rustup target add wasm32-unknown-unknown, or make toolchains)"; fi

deny: ## licences, bans and sources
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check bans licenses sources; \
	else echo "SKIPPED: cargo-deny is not installed (cargo install --locked cargo-deny); the same lists are checked over cargo metadata instead:"; \
	  $(CARGO) test -q $(ALL_BUT_COMPILER) --test architecture; fi

journeys: build ## developer, CI, executor and auditor, and the split form over TLS
	$(CARGO) test $(ALL_BUT_COMPILER) --test journeys -- --nocapture

adversarial: build ## each forged or missing item alone is denied with its own code
	$(CARGO) test $(ALL_BUT_COMPILER) --test adversarial
	$(CARGO) test -p trust-store

conformance: build ## third-party vectors, with both signature providers, and the conformance door over stdin
	@test -d "$$MENTAT_VECTORS" || { echo "MISSING: third-party vectors; set MENTAT_VECTORS to their folder (looked in $$MENTAT_VECTORS)"; exit 1; }
	CI=true $(CARGO) test -p trust-store -p tlog
	CI=true $(CARGO) test -p trust-store --features rustcrypto
	CI=true $(CARGO) test $(ALL_BUT_COMPILER) --test conformance

# The oracles share the workspace's target folder and release settings, so that what both need is built once.
ORACLES = CARGO_TARGET_DIR=$${CARGO_TARGET_DIR:-$(CURDIR)/target} $(CARGO)

oracles: ## other people's libraries as judges of the verifier (a workspace of its own: fetches and builds them)
	$(ORACLES) test --release --manifest-path tests/oracles/Cargo.toml
	$(ORACLES) build --release --manifest-path tests/oracles/Cargo.toml --bins

crash: build ## SIGKILL to each server while it works, then a restart: nothing acknowledged is lost
	$(CARGO) test $(ALL_BUT_COMPILER) --test crash -- --nocapture
	$(CARGO) test -p log-store
	MENTAT_POWER=1 $(CARGO) test $(ALL_BUT_COMPILER) --test power -- --nocapture --test-threads=1

interop: interop-programs interop-pkcs11 interop-kms interop-postgres interop-s3 interop-smtp interop-tpm ## other people's programs, devices and services; each missing one is named and counted

interop-programs: build ## other people's programs against a running stack
	$(CARGO) test $(ALL_BUT_COMPILER) --test interop -- --nocapture

# One selection of features for all of the targets below and `check-backends`, and so one build of them all; programs are built
# together with a suite, because what suites need of a library counts into that. Whoever runs one of the targets alone may name
# what that one needs, such as BACKENDS=ca-service/postgres.
BACKENDS ?= ca-service/pkcs11,mentatctl/pkcs11,ca-service/aws-kms,mentatctl/aws-kms,ca-service/postgres,ca-service/smtp,ca-service/tpm,mentatctl/tpm
WITH_BACKENDS = $(ALL_BUT_COMPILER) --features $(BACKENDS)

interop-pkcs11: ## the key backend for PKCS#11 tokens, a CA and a developer with their keys in one, against SoftHSM 2
	@if ! command -v softhsm2-util >/dev/null; then echo "SKIPPED: SoftHSM 2 is not installed (Debian: apt-get install softhsm2)"; exit 0; fi; \
	d=$$(mktemp -d) && mkdir $$d/tokens && printf 'directories.tokendir = %s\nlog.level = ERROR\n' $$d/tokens > $$d/softhsm2.conf && \
	export SOFTHSM2_CONF=$$d/softhsm2.conf; \
	$(CARGO) test $(WITH_BACKENDS) --lib -- pkcs11 && \
	$(CARGO) test $(WITH_BACKENDS) --test pkcs11 -- --nocapture && \
	$(CARGO) build $(WITH_BACKENDS) --bins --test interop && $(CARGO) build -p executor-compiler && \
	$(CARGO) test $(WITH_BACKENDS) --test interop -- token --nocapture; s=$$?; rm -r $$d; exit $$s

interop-kms: ## the key backend for AWS KMS and a developer with the key there: on services of their own, then against moto
	@if command -v moto_server >/dev/null; then export MENTAT_MOTO=1; else echo "SKIPPED: moto is not installed (pip install 'moto[server]')"; fi; \
	$(CARGO) test $(WITH_BACKENDS) --lib -- aws_kms --nocapture && \
	$(CARGO) build $(WITH_BACKENDS) --bins --test interop && $(CARGO) build -p executor-compiler && \
	$(CARGO) test $(WITH_BACKENDS) --test interop -- key_service --nocapture

# All suites of the authority but the one about copies of the file that SQLite has.
interop-postgres: ## the authority with its records in PostgreSQL: the suites that `make test` runs on SQLite
	@bin=$$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1); \
	if test -z "$$MENTAT_POSTGRES" && test -z "$$bin"; then echo "SKIPPED: PostgreSQL is not installed (Debian: apt-get install postgresql), and MENTAT_POSTGRES names no server"; exit 0; fi; \
	if test -z "$$MENTAT_POSTGRES"; then \
	  d=$$(mktemp -d) && chmod 755 $$d && mkdir $$d/data && as=; \
	  if test "$$(id -u)" = 0; then chown postgres $$d/data && as="setpriv --reuid=postgres --regid=postgres --clear-groups"; fi; \
	  (cd / && $$as $$bin/initdb -D $$d/data -U mentat -A trust >/dev/null && \
	   $$as $$bin/pg_ctl -w -s -D $$d/data -l $$d/data/log -o "-k $$d/data -c listen_addresses= -c max_connections=400" start) || exit 1; \
	  export MENTAT_POSTGRES="postgres:///postgres?host=$$d/data&user=mentat"; \
	fi; \
	$(CARGO) test $(WITH_BACKENDS) --lib -- storage && \
	$(CARGO) test $(WITH_BACKENDS) --test authority -- --skip backup::; s=$$?; \
	test -z "$$d" || { (cd / && $$as $$bin/pg_ctl -w -s -m immediate -D $$d/data stop); rm -r $$d; }; exit $$s

interop-s3: ## media objects in a bucket: on a service of the suite's own, then against moto; and traces to a collector of the suite's own
	@if command -v moto_server >/dev/null; then export MENTAT_MOTO=1; else echo "SKIPPED: moto is not installed (pip install 'moto[server]')"; fi; \
	$(CARGO) build -p executor-compiler && \
	$(CARGO) test $(ALL_BUT_COMPILER) --lib -- media telemetry --nocapture

interop-smtp: ## codes by e-mail, by call and by command, against a mail server of the suite's own
	$(CARGO) build $(WITH_BACKENDS) --bins --test mailed_codes && \
	$(CARGO) test $(WITH_BACKENDS) --test mailed_codes -- --nocapture

interop-tpm: ## the key backend for TPM 2.0, and a CA with its keys in one, against swtpm
	@if ! command -v swtpm >/dev/null; then echo "SKIPPED: swtpm is not installed (Debian: apt-get install swtpm)"; exit 0; fi; \
	$(CARGO) test $(WITH_BACKENDS) --lib -- tpm2 && \
	$(CARGO) test $(WITH_BACKENDS) --test tpm -- --nocapture

# Coverage feedback as cargo-fuzz asks for it, which the stable compiler has too; the address sanitizer, which needs nightly, would
# guard unsafe code, of which the parsers have none.
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks
HOST = $$(rustc -vV | sed -n 's/^host: //p')
FUZZ_SECONDS ?= 10

fuzz-smoke: ## every fuzz target for ten seconds (FUZZ_SECONDS), from its seeds
	@command -v c++ >/dev/null || { echo "MISSING: a C++ compiler, for libFuzzer (apt-get install g++)"; exit 1; }
	CARGO_TARGET_DIR=tests/fuzz/target RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --release --manifest-path tests/fuzz/Cargo.toml --target $(HOST)
	@for target in $$(cd tests/fuzz/fuzz_targets && ls *.rs | sed 's/\.rs$$//'); do \
	  mkdir -p tests/fuzz/corpus/$$target tests/fuzz/artifacts/$$target; echo "== $$target"; \
	  tests/fuzz/target/$(HOST)/release/$$target -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -timeout=5 -verbosity=0 \
	    -print_final_stats=1 -artifact_prefix=tests/fuzz/artifacts/$$target/ tests/fuzz/corpus/$$target tests/fuzz/seeds/$$target 2>&1 \
	    | grep -E "number_of_executed|ERROR|panicked|Test unit written|SUMMARY" ; \
	  ! ls tests/fuzz/artifacts/$$target/* >/dev/null 2>&1 || { echo "FOUND: tests/fuzz/artifacts/$$target"; exit 1; }; done

bench: bench-log bench-log-large bench-ca bench-ca-large bench-verify bench-exec bench-stack ## every promised figure

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

bench-ca-large: ## the authority with ten million certificates: some minutes, 24 GB below TMPDIR; adds its figures to ca.json
	$(CARGO) bench $(ALL_BUT_COMPILER) --no-run --bench ca --bench log
	$(call bench,ca-service,ca) -- large

bench-verify: ## the verifier, beside sigstore-verify where its workspace can be built; writes target/bench/verify.json
	@$(ORACLES) build --release --manifest-path tests/oracles/Cargo.toml --bins || echo "NOT BUILT: sigstore-verify, the peer"
	$(call bench,trust-store,verify)

bench-exec: ## the executor, lean and full; writes target/bench/exec.json
	$(CARGO) build --release -p executor-compiler
	$(CARGO) build --release $(LEAN) --bin executor
	cp $(RELEASE)/executor $(RELEASE)/executor-lean
	$(CARGO) build --release $(ALL_BUT_COMPILER)
	$(call bench,executor/server,exec)

bench-stack: ## a whole stack: its start, signing with it, keyless certificates; writes target/bench/stack.json
	$(CARGO) build --release $(ALL_BUT_COMPILER)
	$(call bench,tests,stack)

bench-tlog: ## the Merkle core alone
	$(CARGO) bench $(ALL_BUT_COMPILER) --bench tree

examples: build ## every guest example of the SDKs: built, signed, admitted and run where its toolchain is present
	$(CARGO) test $(ALL_BUT_COMPILER) --test examples -- --nocapture

newcomer: build ## the way of somebody's first agent, in each language: new, build, native test, sign, run; prints what each step took
	$(CARGO) test $(ALL_BUT_COMPILER) --test examples -- --nocapture a_new_agent

toolchains: ## the guest toolchains, on Debian (run as root)
	@command -v apt-get >/dev/null || { echo "MISSING: apt-get; install the packages named in this target by other means"; exit 1; }
	sh tests/examples/toolchains.sh
