#!/usr/bin/env bash
# lint-deployments.sh: what is in deployments/, checked by the tools and libraries of those who read it. All
# run, then it fails if one did. "make lint-deployments" calls it. The first time it builds them, which takes
# some two minutes of two cores; they are pinned in deployments/lint/go.mod.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
GO=${GO:-go}
BIN=$PWD/.cache/tools/deployments

mkdir -p "$BIN"
# Without the tag promtool would bring the clients of every cloud, to discover what it scrapes.
CGO_ENABLED=0 "$GO" -C deployments/lint build -tags remove_all_sd -ldflags '-s -w' -o "$BIN/" . github.com/prometheus/prometheus/cmd/promtool ||
  { echo "lint-deployments: building the checkers failed" >&2; exit 1; }

failed=""
check() { # name, command...
  local name=$1 said
  shift
  said=$("$@" 2>&1) || { failed+=" $name"; printf '%s\n' "$said" >&2; }
}

# The unit names a program that is installed later: a root of its own has one in its place.
unit() {
  local root
  root=$(mktemp -d) || return 1
  mkdir -p "$root/etc/systemd/system" "$root/usr/local/bin"
  cp deployments/systemd/hookline.service "$root/etc/systemd/system/"
  printf '#!/bin/sh\n' >"$root/usr/local/bin/hookline"
  chmod 755 "$root/usr/local/bin/hookline"
  # What the host's own units lack in this root is not ours.
  local said
  said=$(systemd-analyze verify --man=no --recursive-errors=no --root="$root" hookline.service 2>&1 | grep 'hookline\.service')
  rm -rf "$root"
  [ -z "$said" ] || { printf '%s\n' "$said"; return 1; }
  systemd-analyze security --offline=true --threshold=20 deployments/systemd/hookline.service >/dev/null || {
    echo "hookline.service: it is exposed more than 2.0 (systemd-analyze security)"
    return 1
  }
}

cd deployments/prometheus || exit 1
check promtool-rules "$BIN/promtool" check rules --lint=all --lint-fatal hookline.rules.yaml
check promtool-test "$BIN/promtool" test rules hookline.rules_test.yaml
check promtool-config "$BIN/promtool" check config --syntax-only ../compose/prometheus.yaml
cd ../lint || exit 1
check chart-compose-dockerfile-dashboards "$BIN/lint"
check tidy "$GO" mod tidy -diff
cd ../..
if command -v systemd-analyze >/dev/null; then
  check systemd unit
else
  echo "lint-deployments: SKIPPED the systemd unit: there is no systemd-analyze here"
fi
[ -z "$failed" ] || { echo "lint-deployments: FAILED:$failed" >&2; exit 1; }
