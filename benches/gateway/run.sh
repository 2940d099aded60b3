#!/usr/bin/env bash
# Measures the gateway against nginx: requests per second of processor time, of the proxy alone and with its backend, and the
# memory of idle connections. Both have two workers, and an echo behind them: of HTTP for nginx, of IIP for the gateway.
# Needs nginx and wrk (Debian: apt-get install nginx-light wrk).
#
# usage: benches/gateway/run.sh [ROUNDS] [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-3}
seconds=${2:-5}
ulimit -n "$(ulimit -Hn)"

cargo build -q --release -p iip-gateway
(cd benches && cargo build -q --release --bin gateway_peer)
gateway=$PWD/target/release/iip-gateway
peer=$PWD/benches/target/release/gateway_peer

dir=$(mktemp -d)
started=()
stop() {
    local process
    for process in "${started[@]}"; do kill "$process" 2>/dev/null || true; done
    rm -rf "$dir"
}
trap stop EXIT
trap 'exit 1' INT TERM HUP

start() { # a command; sets `pid`
    "$@" >>"$dir/log" 2>&1 &
    pid=$!
    started+=("$pid")
}
fill() { # a file, a port, a backend
    sed -e "s|@PORT@|$2|" -e "s|@BACKEND@|$3|" -e "s|@DIR@|$dir|" "benches/gateway/$1.in" >"$dir/$1"
}

http=18081 iip=18082 with_nginx=18083 with_gateway=18084
start "$peer" http "127.0.0.1:$http"; http_pid=$pid
start "$peer" iip "127.0.0.1:$iip"; iip_pid=$pid
fill nginx.conf "$with_nginx" "127.0.0.1:$http"
fill gateway.toml "$with_gateway" "127.0.0.1:$iip"
start nginx -c "$dir/nginx.conf" -p "$dir"; nginx_pid=$pid
start "$gateway" "$dir/gateway.toml"; gateway_pid=$pid
for port in $with_nginx $with_gateway; do
    for _ in $(seq 100); do
        if curl -sf -o /dev/null "http://127.0.0.1:$port/echo"; then break; fi
        sleep 0.1
    done
done

# The ticks of processor time of processes and their children.
ticks() {
    local sum=0 process
    for process in "$@" $(cat $(printf '/proc/%s/task/%s/children ' $(for p in "$@"; do echo "$p" "$p"; done))); do
        set -- $(sed 's/.*) //' "/proc/$process/stat")
        sum=$((sum + ${12} + ${13}))
    done
    echo "$sum"
}
measure() { # a name, clients, a port, the pids of the proxy and of its backend
    local proxy backend requests
    wrk -t1 -c"$2" -d1 "http://127.0.0.1:$3/echo" >/dev/null
    proxy=$(ticks "$4") backend=$(ticks "$5")
    wrk -t1 -c"$2" -d"$seconds" --latency "http://127.0.0.1:$3/echo" >"$dir/wrk"
    proxy=$(($(ticks "$4") - proxy)) backend=$(($(ticks "$5") - backend))
    if grep -E 'Non-2xx|Socket errors' "$dir/wrk"; then exit 1; fi
    requests=$(sed -n 's/ *\([0-9]*\) requests in.*/\1/p' "$dir/wrk")
    echo "$1, $2 clients: $((requests / seconds)) requests/s, per second of processor time" \
        "$((requests * 100 / proxy)) of the proxy, $((requests * 100 / (proxy + backend))) with its backend," \
        "p99$(sed -n 's/ *99%//p' "$dir/wrk")"
}
for round in $(seq "$rounds"); do
    echo "round $round"
    for clients in 64 512; do
        measure nginx "$clients" "$with_nginx" "$nginx_pid" "$http_pid"
        measure gateway "$clients" "$with_gateway" "$gateway_pid" "$iip_pid"
    done
done
for proxy in nginx gateway; do
    port=with_$proxy process=${proxy}_pid
    echo "$proxy, 10,000 idle connections, half of them used once:"
    "$peer" idle "127.0.0.1:${!port}" 10000 "${!process}"
done
