#!/usr/bin/env bash
# What building again costs after an edit: the programs of edit-build/ in turns, as a Markdown table of medians.
# Usage: ./edit-build.sh [ROUNDS] [CELL..], by default 5 rounds of 20:debug 20:release 100:debug 100:release: the number
# of methods and the profile. Needs cargo; no protoc.
#
# Each cell has two edits: of a literal in the body of one handler, and of the name of a field of one argument's type.
set -euo pipefail
cd "$(dirname "$0")/edit-build"
source ../medians.sh

rounds=${1:-5}
cells=("${@:2}")
if [ ${#cells[@]} = 0 ]; then cells=(20:debug 20:release 100:debug 100:release); fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A cache of compiled crates would be measured instead of the compiler, and cargo's defaults are measured.
export RUSTC_WRAPPER= CARGO_TERM_COLOR=never LC_ALL=C TIMEFORMAT="%R %U %S"
unset CARGO_INCREMENTAL CARGO_BUILD_INCREMENTAL RUSTFLAGS

# What the build script of tonic's reads, too.
export METHODS FIELD
edit=0
generate() { ./generate.sh "$1" "$METHODS" "$edit" "$FIELD"; }

# Builds $1 with the profile, and writes seconds and processor seconds to $work/time.
build() {
    local options=(--offline --locked --target-dir target -p "edit-$1")
    if [ "$profile" = release ]; then options+=(--release); fi
    if ! { time cargo build "${options[@]}" 2>"$work/log"; } 2>"$work/time"; then
        cat "$work/log" >&2
        exit 1
    fi
}

# Builds $1 after an edit of kind $2, checks its calls, and adds a line to its file: seconds, processor seconds.
measure() {
    local name=$1 calls
    generate "$name"
    build "$name"
    if [ "$(grep -c '^ *Compiling ' "$work/log")" != 1 ]; then
        echo "$name: other crates were compiled too" >&2
        cat "$work/log" >&2
        exit 1
    fi
    calls=$("target/$profile/edit-$name")
    if [ "$(head -n 1 <<<"$calls")" != "call in method 0, edit $edit" ] || [ "$(wc -l <<<"$calls")" != "$METHODS" ]; then
        echo "$name says: $calls" >&2
        exit 1
    fi
    awk '{ print $1, $2 + $3 }' "$work/time" >>"$work/$2-$name"
    echo "$METHODS methods, $profile, $2, $name: $(tail -n 1 "$work/$2-$name")" >&2
}

measure_cell() {
    METHODS=${1%:*} profile=${1#*:} FIELD=name
    local programs=(iip tonic tarpc) name kind round turn
    rm -f "$work"/*-*
    for name in "${programs[@]}"; do
        generate "$name"
        build "$name"
    done
    for ((round = 0; round < rounds; round++)); do
        for kind in handler field; do
            edit=$((edit + 1))
            if [ "$kind" = field ]; then FIELD=name_$edit; fi
            # Each is first as often as the others.
            for turn in 0 1 2; do
                measure "${programs[(round + turn) % 3]}" "$kind"
            done
        done
    done
    # Ratios are taken within a round.
    for kind in handler field; do
        paste "$work/$kind-iip" "$work/$kind-tonic" "$work/$kind-tarpc" |
            awk '{ print $2, $4, $6, $2 / $4, $2 / $6, $1, $3, $5, $1 / $3, $1 / $5 }' |
            medians "%.2f %.2f %.2f %.2f %.2f %.2f %.2f %.2f %.2f %.2f" |
            sed "s/^/| $METHODS | $profile | $kind |/"
    done >>"$work/table"
}

# Downloads do not count. The lock file follows what iip-rpc depends on; versions in it stay.
METHODS=1 FIELD=name
for name in iip tonic tarpc; do generate "$name"; done
cargo fetch -q
for cell in "${cells[@]}"; do measure_cell "$cell"; done

echo "Medians of $rounds rounds:"
echo
echo "| methods | profile | edit | processor time, s: iip | tonic | tarpc | iip / tonic | iip / tarpc" \
    "| time, s: iip | tonic | tarpc | iip / tonic | iip / tarpc |"
echo "|---:|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
cat "$work/table"
