#!/usr/bin/env bash
# examples.sh: runs what the documentation shows against "hookline dev": the producers of examples/produce,
# the receivers of examples/receive with good and forged signatures, and the shell commands of README.md and
# docs/quickstart.md. Run it by "make examples", which builds bin/ first.
#
# Packages of Python and Node are pinned with their hashes (requirements.txt, package-lock.json) and kept in
# ${XDG_CACHE_HOME:-~/.cache}/hookline/examples. Where one of the languages, or the ClickHouse engine, is
# missing, its part is skipped, and the last line says so; under CI=true that is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
GO=${GO:-go}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hookline/examples
mkdir -p "$cache"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

skipped=""
skip() { skipped+="${skipped:+; }$1 ($(tail -1 "$2"))"; }

# kept NAME FILES: the folder of what was installed from these files.
kept() { echo "$cache/$1-$(cat "${@:2}" | sha256sum | cut -c1-16)"; }

python() {
  local wants=(examples/produce/python/requirements.txt examples/receive/python/requirements.txt) dir
  dir=$(kept python "${wants[@]}")
  command -v python3 >/dev/null || { echo "install python3" && return 1; }
  if [ ! -e "$dir/.done" ]; then
    rm -rf "$dir" && python3 -m venv "$dir" || return 1
    "$dir/bin/pip" install -q --disable-pip-version-check --only-binary :all: --require-hashes "${wants[@]/#/-r}" || return 1
    touch "$dir/.done"
  fi
  echo "$dir/bin/python"
}

node() {
  local from=examples/receive/node dir
  dir=$(kept node "$from/package-lock.json")
  command -v npm >/dev/null && command -v node >/dev/null || { echo "install node and npm" && return 1; }
  if [ ! -e "$dir/.done" ]; then
    rm -rf "$dir" && mkdir -p "$dir" && cp "$from/package.json" "$from/package-lock.json" "$dir" || return 1
    npm ci --silent --no-audit --no-fund --ignore-scripts --prefix "$dir" || return 1
    touch "$dir/.done"
  fi
  echo "$dir/node_modules"
}

# have VARIABLE WHAT COMMAND...: the last line that the command prints, into the variable for the tests.
have() {
  if "${@:3}" >"$tmp/log" 2>&1; then
    export "$1=$(tail -1 "$tmp/log")"
  else
    skip "$2" "$tmp/log"
  fi
}

have HOOKLINE_TEST_PYTHON "Python's examples" python
have HOOKLINE_TEST_NODE_MODULES "Node's examples" node
have HOOKLINE_TEST_KAFKA_JARS "the Java example" scripts/kafka.sh jars
have HOOKLINE_ENGINE_LIB "the shell commands" scripts/engine-lib.sh
if [ -n "$skipped" ] && [ "${CI:-}" = true ]; then
  echo "examples: FAILED: under CI=true none may be skipped: $skipped" >&2
  exit 1
fi

HOOKLINE_TEST_EXAMPLES=1 HOOKLINE_TEST_BIN=$PWD/bin/hookline "$GO" test -count=1 -timeout 5m -run '^TestExamples' ${ARGS:-} ./internal/doctest
[ -z "$skipped" ] || echo "examples: SKIPPED $skipped"
