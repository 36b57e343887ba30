# Compiles a guest in AssemblyScript: with the compiler on the path (npm install -g assemblyscript), else with the one that
# `npm install` put beside package.json. An instance serves one call, so nothing needs to be freed: the runtime is `stub`.
# `assert` stays in the module: what an agent asserts of its input is a check like any other.
ASC = $(if $(shell command -v asc),asc,npx --no-install asc)
, := ,

# $(call asc,SOURCE,ABORT,MODULE): ABORT is the path of the function that the compiler calls where a program cannot go on.
asc = @$(ASC) --version >/dev/null 2>&1 || { echo "MISSING: asc, the AssemblyScript compiler; run npm install -g assemblyscript"; exit 1; }; \
	$(ASC) $(1) --outFile $(3) --runtime stub --exportStart _initialize -Oz --use abort=$(2)
