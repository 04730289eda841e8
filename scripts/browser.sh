#!/usr/bin/env bash
# browser.sh: the headless Chromium that tests of the console drive; prints its path. Where none is installed it
# installs Debian's, as root and with apt; elsewhere it says how, and fails.
set -euo pipefail
find() {
  local name
  for name in "${HOOKLINE_TEST_BROWSER:-}" chromium chromium-browser google-chrome chrome headless_shell; do
    [ -n "$name" ] && command -v "$name" && return
  done
  return 1
}
find && exit
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  begun=$SECONDS
  {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium
  } >&2
  echo "browser: chromium installed in $((SECONDS - begun)) s" >&2
  find && exit
fi
echo "browser: no Chromium: install one (Debian: apt-get install chromium; macOS: brew install --cask chromium), or set HOOKLINE_TEST_BROWSER to one" >&2
exit 1
