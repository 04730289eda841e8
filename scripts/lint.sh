#!/usr/bin/env bash
# lint.sh: every check of the sources that is not a test; all run, then it fails if one did. "make lint"
# builds the checkers first, from tools/go.mod.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
GO=${GO:-go}
TOOLS=${TOOLS:-.cache/tools}

failed=""
check() { # name, command...
  local name=$1
  shift
  "$@" || failed+=" $name"
}

formatted() {
  local files
  files=$("$TOOLS/gofumpt" -l .) || return 1
  [ -z "$files" ] || { printf 'not formatted (run "make fmt"):\n%s\n' "$files"; return 1; }
}

# A switch over one of our enums, or a table by one, must name every value, default or not: a new Outcome
# shall show wherever it is not handled. Enums of others are left out: they grow without us.
exhaustive() {
  "$TOOLS/exhaustive" -check=switch,mapliteral -typeonly='^github\.com/hookline/hookline/' ./...
}

check gofumpt formatted
check vet "$GO" vet ./...
check staticcheck "$TOOLS/staticcheck" ./...
check exhaustive exhaustive
check tidy "$GO" mod tidy -diff
check tools-tidy "$GO" -C tools mod tidy -diff
check verifiers-tidy "$GO" -C internal/verifiers mod tidy -diff
check receiver-tidy "$GO" -C examples/receive/go mod tidy -diff
check receiver-vet "$GO" -C examples/receive/go vet ./...
for script in scripts/*.sh .ci/run; do check "$script" bash -n "$script"; done
[ -z "$failed" ] || { echo "lint: FAILED:$failed" >&2; exit 1; }
