#!/usr/bin/env bash
# What a service costs to build: clean release builds of build-cost/iip and build-cost/tonic in turns, as a Markdown table of
# medians. Usage: ./build-cost.sh [ROUNDS], 3 by default. Needs cargo and strip; no protoc.
set -euo pipefail
cd "$(dirname "$0")/build-cost"
source ../medians.sh

rounds=${1:-3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A cache of compiled crates would be measured instead of the compiler.
export RUSTC_WRAPPER= CARGO_TERM_COLOR=never LC_ALL=C TIMEFORMAT="%R %U %S"

# Downloads do not count. A lock file follows what iip-rpc depends on; versions in it stay.
for name in iip tonic; do
    cargo fetch -q --manifest-path "$name/Cargo.toml"
done

# Builds $1 from nothing, checks that it greets, and adds a line to its file: seconds, processor seconds, crates, KiB.
measure() {
    local name=$1 target=$work/target greeting
    local build=(cargo build --release --offline --manifest-path "$name/Cargo.toml" --target-dir "$target")
    if ! { time "${build[@]}" 2>"$work/log"; } 2>"$work/time"; then
        cat "$work/log" >&2
        exit 1
    fi
    strip -o "$work/stripped" "$target/release/hello-$name"
    rm -rf "$target"
    greeting=$("$work/stripped")
    if [ "$greeting" != "hello, world" ]; then
        echo "$name says: $greeting" >&2
        exit 1
    fi
    echo "$(cat "$work/time") $(grep -c '^ *Compiling ' "$work/log") $(wc -c <"$work/stripped")" |
        awk '{ print $1, $2 + $3, $4, $5 / 1024 }' >>"$work/$name"
    echo "$name: $(tail -n 1 "$work/$name")" >&2
}

for ((round = 0; round < rounds; round++)); do
    # Each is first as often as the other.
    if ((round % 2)); then order="tonic iip"; else order="iip tonic"; fi
    for name in $order; do
        measure "$name"
    done
done

echo "| median of $rounds rounds | clean release build, s | processor time, s | crates compiled | stripped binary, KiB |"
echo "|---|---:|---:|---:|---:|"
for name in iip tonic; do
    echo "| $name |$(medians "%.1f %.1f %d %.0f" <"$work/$name")"
done
# Ratios are taken within a round.
echo "| iip / tonic |$(paste "$work/iip" "$work/tonic" |
    awk '{ print $1 / $5, $2 / $6, $3 / $7, $4 / $8 }' | medians "%.2f %.2f %.2f %.2f")"
