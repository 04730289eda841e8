#!/usr/bin/env bash
# kafka.sh ACTION [--data DIR] [--brokers 1|3] [--port PORT | --ports LIST] [--node I] [--parent PID]
#
# Runs real Apache Kafka (KRaft, each node broker and controller) on 127.0.0.1, for tests and trials.
#   up      start what does not run and wait for it; prints "bootstrap=HOST:PORT,..."
#   down    stop all nodes, or the one of --node, in an orderly way
#   kill9   the same with SIGKILL; "up" brings them back on the same data
#   status  one line per node: its address, and its pid and memory or "down"
#   jars    bring and check the jars; prints the Java class path
#   check   nothing, or one line that says what is missing, and exit 1 (no network)
#
# --data     state of the cluster (default: the cache's cluster-PORT). All but "up" need only this.
# --brokers  1 (default) or 3, at the first "up" of DIR; later DIR knows
# --port     first of 2N ports in a row: N for clients, N for controllers (default 19092)
# --ports    these 2N ports instead, separated by commas; refused where DIR has others
# --parent   stop the cluster by SIGKILL and remove DIR when this process is gone (a killed test)
#
# The jars come by Maven, by the version below, and are checked against kafka-jars.sha256: a jar that
# is not listed, is missing or differs is refused. They are kept in ${XDG_CACHE_HOME:-~/.cache}/hookline.
#
# Environment: HOOKLINE_KAFKA_HEAP (320m), HOOKLINE_KAFKA_JVM (more options of a node's JVM, in one
# line, e.g. "-Xms2g -Xmx2g -Xmn1g"; of one that is given twice the last counts, a second collector
# is refused by Java), HOOKLINE_KAFKA_WAIT (90, seconds to come up),
# HOOKLINE_KAFKA_EXTRA (more lines for server.properties, which override those before; @PORT@ and
# @CONTROLLER@ in them are the node's ports).
set -euo pipefail

VERSION=4.4.0
LOG4J=2.25.5 # kafka_2.13's pom brings no slf4j binding; without one the broker logs nothing
PLUGIN=org.apache.maven.plugins:maven-dependency-plugin:3.8.1
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PINS=$HERE/kafka-jars.sha256
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/hookline
JARS=$CACHE/kafka-$VERSION
HEAP=${HOOKLINE_KAFKA_HEAP:-320m}
WAIT=${HOOKLINE_KAFKA_WAIT:-90}
REMEDY="install Java 17 or later and Maven, e.g. apt-get install openjdk-17-jre-headless maven"

die() { echo "kafka: $*" >&2; exit 1; }

usage() { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}" >&2; exit 2; }

# check: Java always, Maven only as long as the jars are not in the cache.
check() {
  local major
  command -v java >/dev/null || die "looking for Java: not found ($REMEDY)"
  major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)
  [ "${major:-0}" -ge 17 ] || die "looking for Java: version ${major:-unknown} is too old for Kafka $VERSION ($REMEDY)"
  [ -d "$JARS" ] || command -v mvn >/dev/null || die "looking for Maven: not found ($REMEDY)"
}

# verify DIR: the jars in DIR against the committed list, both ways.
verify() {
  local sum=(sha256sum)
  command -v sha256sum >/dev/null || sum=(shasum -a 256)
  (cd "$1" && "${sum[@]}" --check --quiet "$PINS") >&2 || return 1
  diff <(cd "$1" && ls -- *.jar | LC_ALL=C sort) <(awk '{print $2}' "$PINS" | LC_ALL=C sort) >&2
}

jars() {
  check
  [ -d "$JARS" ] && return 0
  mkdir -p "$CACHE"
  if command -v flock >/dev/null; then # without it two runs at once download twice, which is only slow
    exec 9>"$CACHE/kafka.lock"
    flock 9
    if [ -d "$JARS" ]; then
      exec 9>&-
      return 0
    fi
  fi
  TMP=$(mktemp -d "$CACHE/kafka.XXXXXX")
  trap 'rm -rf "$TMP"' EXIT
  echo "kafka: downloading Apache Kafka $VERSION (43 MB) ..." >&2
  cat >"$TMP/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>hookline</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$VERSION</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>$LOG4J</version></dependency>
</dependencies></project>
XML
  (cd "$TMP" && mvn -q -B -Dstyle.color=never "$PLUGIN:copy-dependencies" -DincludeScope=runtime -DoutputDirectory="$TMP/jars" >"$TMP/mvn.out" 2>&1) ||
    die "downloading Kafka $VERSION: mvn: $(grep -m1 ERROR "$TMP/mvn.out" || tail -1 "$TMP/mvn.out") (check the network and Maven's mirror settings)"
  verify "$TMP/jars" || die "checking Kafka's jars: they differ from scripts/kafka-jars.sha256 (do not use them; try again, then report it)"
  mv "$TMP/jars" "$JARS"
  rm -rf "$TMP"
  trap - EXIT
  ! command -v flock >/dev/null || exec 9>&-
}

# jvm HEAP CLASS ARGS...: a JVM as a test needs it: quick to start, small, quiet.
jvm() {
  local heap=$1
  shift
  exec java -Xms48m "-Xmx$heap" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -XX:-UsePerfData \
    -Djava.net.preferIPv4Stack=true -Dlog4j2.configurationFile="$DATA/log4j2.properties" -cp "$JARS/*" "$@"
}

# ours FILE: the pid in FILE runs, and is ours: after a reboot the number may be somebody else's.
ours() { [ -s "$1" ] && ps -o args= -p "$(cat "$1")" 2>/dev/null | grep -qE 'kafka\.(Kafka|sh)'; }

alive() { ours "$DATA/n$1/pid"; }

# nodes: the node of --node, or all.
nodes() { if [ -n "$NODE" ]; then echo "$NODE"; else seq 1 "$N"; fi; }

# load: what "up" has written; N, PORTS[0..2N-1].
load() {
  [ -s "$DATA/ports" ] || die "reading $DATA: no cluster there (run 'kafka.sh up' first, or give --data)"
  IFS=, read -r -a PORTS <"$DATA/ports"
  N=$((${#PORTS[@]} / 2))
  [ -z "$NODE" ] || { [ "$NODE" -ge 1 ] && [ "$NODE" -le "$N" ]; } || die "choosing node $NODE: the cluster has nodes 1 to $N"
}

bootstrap() { local i s=""; for i in $(seq 1 "$N"); do s+="${s:+,}127.0.0.1:${PORTS[i - 1]}"; done; echo "$s"; }

create() {
  local i list=""
  if [ -s "$DATA/ports" ]; then
    [ -z "$PORTLIST" ] || [ "$PORTLIST" = "$(cat "$DATA/ports")" ] ||
      die "creating a cluster: $DATA has one with other ports, $(cat "$DATA/ports") (give another --data, or no --ports)"
    return 0
  fi
  [ "$BROKERS" = 1 ] || [ "$BROKERS" = 3 ] || die "creating a cluster: --brokers is 1 or 3, not $BROKERS"
  if [ -z "$PORTLIST" ]; then
    for i in $(seq 0 $((2 * BROKERS - 1))); do list+="${list:+,}$((PORT + i))"; done
    PORTLIST=$list
  fi
  [ "$(awk -F, '{print NF}' <<<"$PORTLIST")" = $((2 * BROKERS)) ] || die "creating a cluster: --ports needs $((2 * BROKERS)) ports for $BROKERS brokers, got $PORTLIST"
  cat >"$DATA/log4j2.properties" <<'L'
status=error
appender.c.type=Console
appender.c.name=C
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=%d{HH:mm:ss.SSS} %-5p %c{1} %m%n
rootLogger.level=INFO
rootLogger.appenderRef.c.ref=C
logger.config.name=org.apache.kafka.common.config
logger.config.level=WARN
L
  # A base64url UUID; the leading "h" keeps off a "-", which the format tool would read as an option.
  echo "h$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n' | cut -c2-21)A" >"$DATA/cluster.id"
  echo "$PORTLIST" >"$DATA/ports"
}

properties() { # node
  local i=$1 j voters="" rf misr
  rf=$N
  misr=$((N < 3 ? 1 : 2))
  for j in $(seq 1 "$N"); do voters+="${voters:+,}$j@127.0.0.1:${PORTS[N + j - 1]}"; done
  cat <<P
process.roles=broker,controller
node.id=$i
controller.quorum.voters=$voters
listeners=PLAINTEXT://127.0.0.1:${PORTS[i - 1]},CONTROLLER://127.0.0.1:${PORTS[N + i - 1]}
advertised.listeners=PLAINTEXT://127.0.0.1:${PORTS[i - 1]}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$DATA/n$i/log
num.network.threads=2
num.io.threads=4
num.partitions=4
default.replication.factor=$rf
min.insync.replicas=$misr
auto.create.topics.enable=false
offsets.topic.replication.factor=$rf
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$rf
transaction.state.log.min.isr=$misr
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=$rf
share.coordinator.state.topic.min.isr=$misr
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=200
log.cleaner.dedupe.buffer.size=4194304
# A node killed with -9 may register again only when its old session has ended (default 9 s).
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
controlled.shutdown.enable=true
P
  local extra=${HOOKLINE_KAFKA_EXTRA:-}
  extra=${extra//@PORT@/${PORTS[i - 1]}}
  echo "${extra//@CONTROLLER@/${PORTS[N + i - 1]}}"
}

format() { # node: static voters, so neither --standalone nor --initial-controllers
  local dir=$DATA/n$1
  [ -f "$dir/log/meta.properties" ] && return 0
  (jvm 128m kafka.tools.StorageTool format -g -t "$(cat "$DATA/cluster.id")" -c "$dir/server.properties") >"$dir/format.out" 2>&1 ||
    die "formatting node $1: $(tail -1 "$dir/format.out") (see $dir/format.out)"
}

start() { # node
  local dir=$DATA/n$1
  : >"$dir/kafka.out"
  (
    trap '' HUP INT
    cd "$dir"
    read -r -a more <<<"${HOOKLINE_KAFKA_JVM:-}"
    jvm "$HEAP" ${more[@]+"${more[@]}"} kafka.Kafka server.properties
  ) >>"$dir/kafka.out" 2>&1 </dev/null &
  echo $! >"$dir/pid"
}

await() { # node
  local tries=$((WAIT * 10)) dir=$DATA/n$1
  while ! grep -q 'Kafka Server started' "$dir/kafka.out"; do
    alive "$1" || die "starting node $1: it ended: $(grep -m1 -E 'Exception|ERROR|FATAL' "$dir/kafka.out" || tail -1 "$dir/kafka.out") (see $dir/kafka.out)"
    [ $((tries -= 1)) -gt 0 ] || die "starting node $1: not up within HOOKLINE_KAFKA_WAIT=$WAIT s (see $dir/kafka.out)"
    sleep 0.1
  done
}

# watch: ends the cluster of a parent that could not do so itself. Owned by the cluster: "down" and
# "kill9" of all nodes end it.
watch() {
  [ -n "$PARENT" ] && ! ours "$DATA/watch.pid" || return 0
  (
    trap '' HUP INT
    while kill -0 "$PARENT" 2>/dev/null && [ -d "$DATA" ]; do sleep 1; done
    NODE=
    [ ! -d "$DATA" ] || { halt KILL; rm -rf "$DATA"; }
  ) >/dev/null 2>&1 </dev/null 9>&- &
  echo $! >"$DATA/watch.pid"
}

up() {
  local i new=()
  jars
  mkdir -p "$DATA"
  create
  load
  watch
  for i in $(nodes); do
    alive "$i" && continue
    mkdir -p "$DATA/n$i"
    properties "$i" >"$DATA/n$i/server.properties"
    new+=("$i")
  done
  local pids=()
  for i in ${new[@]+"${new[@]}"}; do format "$i" & pids+=($!); done
  for i in ${pids[@]+"${pids[@]}"}; do wait "$i"; done
  for i in ${new[@]+"${new[@]}"}; do start "$i"; done
  for i in ${new[@]+"${new[@]}"}; do await "$i"; done
  echo "bootstrap=$(bootstrap)"
}

# gone PID TENTHS: waits until the process is no more. A zombie counts only after 2 s: it is one as soon as
# its first thread has ended, when others may still hold its ports; where nobody reaps, it stays one.
gone() {
  local left=$2
  while kill -0 "$1" 2>/dev/null; do
    [ $((left -= 1)) -gt 0 ] || return 1
    [ $(($2 - left)) -lt 20 ] || [ "$(ps -o stat= -p "$1" | cut -c1)" != Z ] || return 0
    sleep 0.1
  done
}

halt() { # signal
  local i pids=()
  for i in $(nodes); do ! alive "$i" || pids+=("$(cat "$DATA/n$i/pid")"); done
  for i in ${pids[@]+"${pids[@]}"}; do kill "-$1" "$i" 2>/dev/null || true; done
  for i in ${pids[@]+"${pids[@]}"}; do
    gone "$i" 300 && continue
    echo "kafka: stopping process $i: still there after 30 s, killing it" >&2
    kill -9 "$i" 2>/dev/null || true
    gone "$i" 100 || die "stopping process $i: SIGKILL did not end it"
  done
  for i in $(nodes); do rm -f "$DATA/n$i/pid"; done
}

down() { # signal
  load
  if [ -z "$NODE" ] && ours "$DATA/watch.pid"; then
    kill "$(cat "$DATA/watch.pid")" 2>/dev/null || true
    rm -f "$DATA/watch.pid"
  fi
  halt "$1"
}

status() {
  local i p
  load
  for i in $(nodes); do
    if alive "$i"; then
      p=$(cat "$DATA/n$i/pid")
      echo "node $i 127.0.0.1:${PORTS[i - 1]} pid $p, $(ps -o rss= -p "$p" | awk '{printf "%d", $1/1024}') MiB"
    else
      echo "node $i 127.0.0.1:${PORTS[i - 1]} down"
    fi
  done
}

ACTION=${1:-}
[ $# -eq 0 ] || shift
DATA="" BROKERS=1 PORT=19092 PORTLIST="" NODE="" PARENT=""
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || usage
  case $1 in
    --data) DATA=$2 ;;
    --brokers) BROKERS=$2 ;;
    --port) PORT=$2 ;;
    --ports) PORTLIST=$2 ;;
    --node) NODE=$2 ;;
    --parent) PARENT=$2 ;;
    *) usage ;;
  esac
  shift 2
done
DATA=${DATA:-$CACHE/cluster-$PORT}
case $ACTION in
  up) up ;;
  down) down TERM ;;
  kill9) down KILL ;;
  status) status ;;
  jars) jars && echo "$JARS/*" ;;
  check) check ;;
  *) usage ;;
esac
