#!/bin/bash
# tools/check.sh - builds presets, runs their tests and ends with a table of every tier.
#
#   tools/check.sh [--tier NAME] PRESET...     presets of CMakePresets.json, e.g. release asan tsan
#
# The last line is "N passed, N failed, N skipped" over everything; a build that breaks counts as
# one failure. Exit status 0 only if nothing failed and something passed. Logs: PRESET's build
# folder, check.log.
set -u
cd "$(dirname "$0")/.." || exit 1

tier=""
if [ "${1:-}" = --tier ]; then
    tier=$2
    shift 2
fi
[ $# -gt 0 ] || set -- release

rows=$(mktemp) || exit 1
trap 'rm -f "$rows"' EXIT
jobs=$(nproc)

row() { # preset tier passed failed skipped seconds
    printf '%s %s %d %d %d %s\n' "$@" >>"$rows"
}

# A line for every compiled file is too much; a percentage now and then is enough to see it move.
progress() {
    local line last=0
    while IFS= read -r line; do
        case $line in
        *error*:* | *warning:* | *"undefined reference"* | *" Error "*) echo "$line" ;;
        '['*%']'*)
            line=${line#[}
            line=${line%%\%*}
            [ $((line)) -ge $((last + 20)) ] && echo "  $((line)) %" && last=$((line))
            ;;
        esac
    done
}

# Reads ctest's lines and adds one row a tier: the part of a test's name before the slash.
count() {
    awk -v preset="$1" '
        /^ *[0-9]+\/[0-9]+ Test +#[0-9]+: / {
            name = $0; sub(/^.*Test +#[0-9]+: /, "", name); split(name, part, "/")
            t = part[1]; if (!(t in seen)) { seen[t] = 1; order[++n] = t }
            seconds[t] += $(NF - 1)
            if (/\*\*\*Skipped/) skipped[t]++
            else if (/   Passed /) passed[t]++
            else failed[t]++ }
        END { for (i = 1; i <= n; i++) { t = order[i]
            printf "%s %s %d %d %d %.1f\n", preset, t, passed[t], failed[t], skipped[t],
                   seconds[t] } }' "$2" >>"$rows"
}

one_preset() {
    local preset=$1 folder=build-$1 target=all wrap="" limit=900 began=$SECONDS
    [ "$preset" = release ] && folder=build
    [ "$preset" = fuzz ] && target=fuzzers
    [ "$preset" = arm64 ] && limit=3600 # an emulator
    # The thread sanitizer of this compiler does not know the widest address randomisation.
    [ "$preset" = tsan ] && setarch -R true 2>/dev/null && wrap="setarch -R"
    echo "== $preset: build"
    mkdir -p "$folder"
    local log=$folder/check.log
    if ! cmake --preset "$preset" >"$log" 2>&1; then
        tail -n 20 "$log"
        row "$preset" build 0 1 0 $((SECONDS - began))
        return
    fi
    cmake --build --preset "$preset" --target "$target" -j"$jobs" 2>&1 | tee -a "$log" | progress
    if [ "${PIPESTATUS[0]}" != 0 ]; then
        grep -E -A 8 'error:|undefined reference|Error ' "$log" | head -n 40
        row "$preset" build 0 1 0 $((SECONDS - began))
        return
    fi
    echo "== $preset: tests"
    UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1} \
    TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1 suppressions=$PWD/tests/tsan.supp} \
        $wrap ctest --test-dir "$folder" ${tier:+-L "^$tier\$"} --output-on-failure \
        --no-tests=error --timeout $limit -j"$jobs" 2>&1 | tee "$folder/tests.log"
    local status=${PIPESTATUS[0]} before after
    before=$(wc -l <"$rows")
    count "$preset" "$folder/tests.log"
    after=$(wc -l <"$rows")
    [ "$before" = "$after" ] && [ "$status" != 0 ] && row "$preset" tests 0 1 0 0
    # A skipped test says why on a line of its own, which ctest keeps to itself.
    sed -n 's/^\(skip: .*\)/  \1/p' "$folder/Testing/Temporary/LastTest.log" 2>/dev/null | sort -u
}

for preset in "$@"; do
    one_preset "$preset"
done

echo
awk 'BEGIN { printf "%-9s %-8s %7s %7s %8s %8s\n", "build", "tier", "passed", "failed", "skipped",
                    "seconds" }
     { printf "%-9s %-8s %7d %7d %8d %8.1f\n", $1, $2, $3, $4, $5, $6 }' "$rows"
echo
awk '{ p += $3; f += $4; s += $5 }
     END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 || p == 0 }' "$rows"
