#!/usr/bin/env bash
# test.sh [PACKAGES...]: the tests, with real Kafka and the ClickHouse engine. Run it by "make test", which
# builds bin/ first. RUN=regexp chooses tests.
#
# Where Kafka, the engine or a browser cannot be had, the tests that need them are skipped, and the last line says so
# and how to get them; under CI=true that is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
GO=${GO:-go}
TEST_P=${TEST_P:-2}
TEST_TIMEOUT=${TEST_TIMEOUT:-14m}

lacking=""
lack() { # what, the script's lines
  lacking+="${lacking:+; }those that need $1 ($(tail -1 <<<"$2"))"
}
said=$(scripts/kafka.sh jars 2>&1 >/dev/null) || lack "real Kafka" "$said"
if said=$(scripts/engine-lib.sh 2>&1); then
  # not the newest in the cache, which the engine takes by itself, but the one that is pinned
  export HOOKLINE_ENGINE_LIB=${said##*$'\n'}
else
  lack "the ClickHouse engine" "$said"
fi
if said=$(scripts/browser.sh 2>&1); then
  export HOOKLINE_TEST_BROWSER=${said##*$'\n'}
else
  lack "a browser" "$said"
fi
if [ -n "$lacking" ] && [ "${CI:-}" = true ]; then
  echo "test: FAILED: under CI=true no test may be skipped: $lacking" >&2
  exit 1
fi

export HOOKLINE_TEST_KAFKA_SCRIPT=$PWD/scripts/kafka.sh
export HOOKLINE_TEST_ENGINE=$PWD/bin/hookline-engine
export HOOKLINE_TEST_BIN=$PWD/bin/hookline
[ $# -gt 0 ] || set -- ./...
code=0
"$GO" test -race -shuffle=on -timeout "$TEST_TIMEOUT" -p "$TEST_P" ${VERBOSE:+-v} ${RUN:+-run "$RUN"} "$@" || code=$?
[ -z "$lacking" ] || echo "test: SKIPPED $lacking"
exit "$code"
