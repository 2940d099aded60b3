#!/usr/bin/env bash
# Measures the gateway against nginx: requests per second of processor time, of the proxy alone and with its backend, latency, and
# the memory of idle connections. Both have two workers, and an echo behind them: of HTTP for nginx, of IIP for the gateway. Then
# latency once more, of one worker on cores that it shares with client and backend, and of one that has a core to itself: with two
# workers all wait for a core at times, by whole ticks of the kernel's scheduler, and p99 is mostly that of this wait.
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

core_of_others=0 core_of_proxy=1
start() { # a command; sets `pid`
    "$@" >>"$dir/log" 2>&1 &
    pid=$!
    started+=("$pid")
}
fill() { # a file, a port, a backend, the workers; sets `filled`
    filled=$dir/$2.$1
    sed -e "s|@PORT@|$2|" -e "s|@BACKEND@|127.0.0.1:$3|" -e "s|@WORKERS@|$4|" -e "s|@DIR@|$dir|" "benches/gateway/$1.in" >"$filled"
}
await() { # a port
    for _ in $(seq 100); do
        if curl -sf -o /dev/null "http://127.0.0.1:$1/echo"; then return; fi
        sleep 0.1
    done
    return 1
}

http=18081 iip=18082 with_nginx=18083 with_gateway=18084 alone_nginx=18085 alone_gateway=18086 alone_http=18087 alone_iip=18088
single_nginx=18089 single_gateway=18090
start "$peer" http "127.0.0.1:$http"; http_pid=$pid
start "$peer" iip "127.0.0.1:$iip"; iip_pid=$pid
fill nginx.conf "$with_nginx" "$http" 2
start nginx -c "$filled" -p "$dir"; nginx_pid=$pid
fill gateway.toml "$with_gateway" "$iip" 2
start "$gateway" "$filled"; gateway_pid=$pid
start taskset -c "$core_of_others" "$peer" http "127.0.0.1:$alone_http"
start taskset -c "$core_of_others" "$peer" iip "127.0.0.1:$alone_iip"
fill nginx.conf "$alone_nginx" "$alone_http" 1
start taskset -c "$core_of_proxy" nginx -c "$filled" -p "$dir"
fill gateway.toml "$alone_gateway" "$alone_iip" 1
start taskset -c "$core_of_proxy" "$gateway" "$filled"
fill nginx.conf "$single_nginx" "$http" 1
start nginx -c "$filled" -p "$dir"
fill gateway.toml "$single_gateway" "$iip" 1
start "$gateway" "$filled"
for port in $with_nginx $with_gateway $alone_nginx $alone_gateway $single_nginx $single_gateway; do await "$port"; done

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
    check
    requests=$(sed -n 's/ *\([0-9]*\) requests in.*/\1/p' "$dir/wrk")
    echo "$1, $2 clients: $((requests / seconds)) requests/s, per second of processor time" \
        "$((requests * 100 / proxy)) of the proxy, $((requests * 100 / (proxy + backend))) with its backend, $(latency)"
}
check() { # that no request failed
    if grep -E 'Non-2xx|Socket errors' "$dir/wrk"; then exit 1; fi
}
latency() { echo "p50$(sed -n 's/^ *50%//p' "$dir/wrk"), p99$(sed -n 's/^ *99%//p' "$dir/wrk")"; }
measure_latency() { # a name, clients, a port, the command that starts the client
    local name=$1 clients=$2 port=$3
    shift 3
    "$@" wrk -t1 -c"$clients" -d1 "http://127.0.0.1:$port/echo" >/dev/null
    "$@" wrk -t1 -c"$clients" -d"$seconds" --latency "http://127.0.0.1:$port/echo" >"$dir/wrk"
    check
    echo "$name, $clients clients: $(sed -n 's/Requests.sec: *\([0-9]*\).*/\1/p' "$dir/wrk") requests/s, $(latency)"
}
for round in $(seq "$rounds"); do
    echo "round $round"
    for clients in 64 512; do
        measure nginx "$clients" "$with_nginx" "$nginx_pid" "$http_pid"
        measure gateway "$clients" "$with_gateway" "$gateway_pid" "$iip_pid"
        measure_latency "nginx with one worker" "$clients" "$single_nginx"
        measure_latency "gateway with one worker" "$clients" "$single_gateway"
        measure_latency "nginx with a core to itself" "$clients" "$alone_nginx" taskset -c "$core_of_others"
        measure_latency "gateway with a core to itself" "$clients" "$alone_gateway" taskset -c "$core_of_others"
    done
done
for proxy in nginx gateway; do
    port=with_$proxy process=${proxy}_pid
    echo "$proxy, 10,000 idle connections, half of them used once:"
    "$peer" idle "127.0.0.1:${!port}" 10000 "${!process}"
done
