#!/usr/bin/env bash
# screenshots.sh: pictures of the console's pages into docs/img, made by "make screenshots" from a hookline dev
# with endpoints that fail. Needs chromium and the ClickHouse engine; takes about a minute.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
browser=${HOOKLINE_TEST_BROWSER:-$(command -v chromium || command -v chromium-browser || command -v google-chrome)} ||
  { echo "screenshots: finding a browser: no chromium (apt-get install chromium, or set HOOKLINE_TEST_BROWSER)" >&2; exit 1; }
bin=$PWD/bin/hookline
HOOKLINE_ENGINE_LIB=$(scripts/engine-lib.sh)
export HOOKLINE_ENGINE_LIB
tmp=$(mktemp -d)
pids=()
cleanup() {
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  wait
  rm -rf "$tmp"
}
trap cleanup EXIT

port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }
kafka=$(port) clickhouse=$(port) admin=$(port) good=$(port) bad=$(port) away=$(port)
HOOKLINE_ADMIN_ADDR=127.0.0.1:$admin HOOKLINE_RETRY_DELAYS=5s,10s,30s \
  "$bin" dev --kafka-addr "127.0.0.1:$kafka" --clickhouse-addr "127.0.0.1:$clickhouse" --data "$tmp/data" >"$tmp/dev.log" 2>&1 &
pids+=($!)
"$bin" receiver --addr "127.0.0.1:$good" --delay 30ms >/dev/null 2>&1 & pids+=($!)
"$bin" receiver --addr "127.0.0.1:$bad" --status 503 >/dev/null 2>&1 & pids+=($!)
for _ in $(seq 300); do curl -sf "http://127.0.0.1:$admin/readyz" >/dev/null && break; sleep 0.2; done

export HOOKLINE_KAFKA_BROKERS=127.0.0.1:$kafka HOOKLINE_PARTITIONS=6 HOOKLINE_ALLOW_CIDRS=127.0.0.0/8 HOOKLINE_ALLOW_HTTP=true
export HOOKLINE_ALLOW_PORTS=1-65535 HOOKLINE_EVENTS_TOPICS='events=json:type=/type,entity=/order/id'
cat >"$tmp/subs.yaml" <<EOF
subscriptions:
  - {id: erp-mirror, tenant: "*", description: ERP mirror, url: "http://127.0.0.1:$good/hooks/orders?key=secret", ordering: entity}
  - {id: billing, tenant: "*", description: Invoices to the billing system, url: "http://127.0.0.1:$bad/invoices", events: ["invoice.*"], on_exhausted: block}
  - {id: partner-acme, tenant: "*", url: "http://127.0.0.1:$away/in", events: ["order.created"], ordering: entity}
  - {id: audit-trail, tenant: "*", url: "http://127.0.0.1:$good/audit", events: ["order.*"], ordering: none}
EOF
"$bin" subs apply -f "$tmp/subs.yaml" >/dev/null
python3 - "$tmp/events" <<'EOF'
import json, sys
types = ["order.created", "order.paid", "invoice.sent", "order.shipped"]
for part in range(8):
    with open(f"{sys.argv[1]}{part}", "w") as f:
        for i in range(60):
            n = part * 60 + i
            print(json.dumps({"type": types[n % 4], "id": f"evt-{n:04d}", "order": {"id": f"order-{n // 4}", "total": 19.9 + n, "note": "<script>alert(1)</script>"}}), file=f)
EOF
for part in 0 1 2 3 4 5 6 7; do
  "$bin" produce --topic events "$tmp/events$part" >/dev/null
  sleep 4
done

api() { curl -sf "http://127.0.0.1:$admin/api/v1/$1"; }
retrying=$(api 'deliveries?state=retrying&limit=1' | python3 -c 'import json,sys; print(json.load(sys.stdin)["items"][0]["id"])')
shot() { # file path width height [browser options]
  timeout 60 "$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --user-data-dir="$tmp/profile" \
    --screenshot="$PWD/docs/img/$1.png" --window-size="$3,$4" "${@:5}" "http://127.0.0.1:$admin$2" >/dev/null 2>&1
}
shot console-overview / 1200 860
shot console-overview-dark / 1200 860 --force-dark-mode
shot console-subscriptions /subscriptions 1200 420
shot console-subscription /subscriptions/billing 1200 1000
shot console-deliveries /deliveries 1200 700
shot console-delivery "/deliveries/$retrying" 1200 1100
shot console-search '/search?q=evt-0000' 1200 420
go run ./internal/testkit/browser/shot -browser "$browser" -width 375 -height 812 "http://127.0.0.1:$admin/subscriptions" docs/img/console-phone.png
ls -l docs/img/console-*.png
