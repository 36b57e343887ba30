# Builds a guest in Go. TinyGo makes a core module over the interface `mentat`, and frees nothing, because an instance serves one
# call; Go makes a command over WASI preview 1.

# $(call tinygo,MODULE)
tinygo = @command -v tinygo >/dev/null || { echo "MISSING: tinygo; see sdk/README.md, or build the command with Go: make go"; exit 1; }; \
	rm -f $(1); tinygo build -target wasm-unknown -opt z -no-debug -stack-size 64KB -o $(1) . 2>&1 | grep -v 'is not a recognized feature' >&2; test -f $(1)

# Memory of a command, MiB: all that it ever has (memory/main.go says why). The manifest's maximum is larger.
MEMORY_MIB ?= 32

# $(call command,MODULE)
command = @command -v go >/dev/null || { echo "MISSING: Go 1.24 or later"; exit 1; }; \
	GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags='-s -w' -o $(1) . && go run mentat.internal/sdk/memory -mib $(MEMORY_MIB) $(1)
