# Compiles a guest in C with clang, for modules without a C library, and its native test with the compiler of the system. The stack
# stands in front of the data: one that grows too large leaves the memory and ends the call, instead of writing over the data.
CLANG = $(firstword $(foreach name,clang-22 clang-21 clang-20 clang-19,$(shell command -v $(name))) clang)
NATIVE = $(CC) -std=c11 -Wall -Wextra -Werror -g

# $(call module,SOURCES,MODULE)
module = @command -v $(CLANG) >/dev/null || { echo "MISSING: clang with WebAssembly and its linker; on Debian apt-get install clang-22 lld-22"; exit 1; }; \
	$(CLANG) --target=wasm32-unknown-unknown -std=c11 -Wall -Wextra -Oz -ffreestanding -nostdlib -mbulk-memory \
	  -Wl,--no-entry -Wl,--strip-all -Wl,--stack-first -Wl,-z,stack-size=65536 -o $(2) $(1)
