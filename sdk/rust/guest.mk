# Builds a guest in Rust: with the toolchain at hand where it has the target (rustup target add wasm32-unknown-unknown), else
# with Debian's compiler (rustc-web, cargo-web, rust-web-src and lld-22), which brings the sources of its library.
TARGET = wasm32-unknown-unknown
DEBIAN = env -u RUSTUP_TOOLCHAIN -u CARGO -u CARGO_ENCODED_RUSTFLAGS \
	RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Clinker=wasm-ld-22 /usr/bin/cargo
, := ,

# $(call build,CRATES): CRATES of the standard library, where that has to be built too.
build = @if test -d "$$(rustc --print target-libdir --target $(TARGET) 2>&1)"; then \
	  cargo build --release --target $(TARGET) --target-dir target; \
	elif command -v wasm-ld-22 >/dev/null && test -d /usr/lib/rustlib/src/rust/library; then \
	  $(DEBIAN) build --release --target $(TARGET) --target-dir target -Zbuild-std=$(1); \
	else echo "MISSING: a Rust compiler for $(TARGET); run rustup target add $(TARGET), or on Debian apt-get install rustc-web cargo-web rust-web-src lld-22"; exit 1; fi
