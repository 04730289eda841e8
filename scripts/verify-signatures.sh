#!/usr/bin/env bash
# verify-signatures.sh: requests that hookline signed, checked by the official libraries of Standard
# Webhooks and Svix in Go, Python and JavaScript, and the ed25519 ones (v1a) by openssl. Packages are
# pinned and kept in ${XDG_CACHE_HOME:-~/.cache}/hookline/verifiers.
#
# Where python3, npm or openssl is missing, that check is skipped, and the last line says so; under
# CI=true that is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
GO=${GO:-go}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hookline/verifiers
mkdir -p "$cache"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

skipped=""
skip() { skipped+="${skipped:+; }$1"; }
said() { echo "verify-signatures: $1: $2"; }

HOOKLINE_TEST_SIGNED=$tmp/signed.json "$GO" test -count=1 -run '^TestSignedRequests$' ./sender >"$tmp/log" 2>&1 || { cat "$tmp/log" >&2; exit 1; }

HOOKLINE_TEST_SIGNED=$tmp/signed.json "$GO" -C internal/verifiers test -count=1 ./... >"$tmp/log" 2>&1 || { cat "$tmp/log" >&2; exit 1; }
said "Go standard-webhooks v0.0.1, svix v1.44.0" accepted

python=(standardwebhooks==1.1.0 svix==2.9.1)
venv=$cache/python-${python[0]#*==}-${python[1]#*==}
if ! command -v python3 >/dev/null; then
  skip "Python's libraries (install python3)"
elif [ ! -e "$venv/.done" ] && ! { rm -rf "$venv" && python3 -m venv "$venv" && "$venv/bin/pip" install -q --disable-pip-version-check "${python[@]}" && touch "$venv/.done"; } >"$tmp/log" 2>&1; then
  skip "Python's libraries ($(tail -1 "$tmp/log"))"
else
  said "PyPI ${python[*]}" "$("$venv/bin/python" internal/verifiers/verify.py "$tmp/signed.json")"
fi

npm=(standardwebhooks@1.1.1 svix@2.5.0)
modules=$cache/npm-${npm[0]#*@}-${npm[1]#*@}
if ! command -v npm >/dev/null || ! command -v node >/dev/null; then
  skip "JavaScript's libraries (install node and npm)"
elif [ ! -e "$modules/.done" ] && ! { rm -rf "$modules" && mkdir -p "$modules" && npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$modules" "${npm[@]}" && touch "$modules/.done"; } >"$tmp/log" 2>&1; then
  skip "JavaScript's libraries ($(tail -1 "$tmp/log"))"
else
  said "npm ${npm[*]}" "$(NODE_PATH=$modules/node_modules node internal/verifiers/verify.cjs "$tmp/signed.json")"
fi

# No official library verifies v1a. openssl wants the public key in DER: a fixed head and the 32 bytes.
if ! command -v openssl >/dev/null || ! command -v python3 >/dev/null; then
  skip "v1a (install openssl and python3)"
else
  python3 - "$tmp" <<'PY'
import base64, json, sys
tmp = sys.argv[1]
for i, r in enumerate(json.load(open(tmp + "/signed.json"))):
    [v1a] = [s[4:] for s in r["signature"].split(" ") if s.startswith("v1a,")]
    body = base64.b64decode(r["body"])
    for name, content in (
        ("message", f'{r["id"]}.{r["timestamp"]}.'.encode() + body),
        ("forged", f'{r["id"]}.{r["timestamp"]}.'.encode() + body + b" "),
        ("signature", base64.b64decode(v1a)),
        ("key", bytes.fromhex("302a300506032b6570032100") + base64.b64decode(r["public"])),
    ):
        open(f"{tmp}/{i}.{name}", "wb").write(content)
PY
  n=0
  while [ -e "$tmp/$n.message" ]; do
    verify() { openssl pkeyutl -verify -pubin -keyform DER -inkey "$tmp/$n.key" -rawin -in "$tmp/$n.$1" -sigfile "$tmp/$n.signature" >"$tmp/log" 2>&1; }
    verify message || { echo "verify-signatures: openssl refused v1a: $(cat "$tmp/log")" >&2; exit 1; }
    ! verify forged || { echo "verify-signatures: openssl accepted a changed body" >&2; exit 1; }
    n=$((n + 1))
  done
  [ "$n" -gt 0 ]
  said "openssl v1a" "$n requests"
fi

[ -z "$skipped" ] || {
  echo "verify-signatures: SKIPPED $skipped"
  [ "${CI:-}" != true ] || exit 1
}
