#!/bin/bash
# tests/privacy.sh - nothing that is said leaves parleyd or stays anywhere: a conversation with a
# word of its own in each turn, every system call watched.
#
#   tests/privacy.sh BUILD [TURNS]     a build folder with parley and parleyd; 5 turns
#
# Prints what is wrong; exit status 77 when strace is missing or may not trace.
set -u
build=$1
turns=${2:-5}
source=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d) || exit 1
pid=""
trap '[ -n "$pid" ] && kill $pid 2>/dev/null; wait; rm -rf "$dir"' EXIT

strace -o /dev/null true 2>/dev/null || {
    echo "skip: strace is not installed, or may not trace"
    exit 77
}
mkdir "$dir/state" "$dir/tmp"
cat >"$dir/conf" <<CONF
[model]
path = $source/models/parley-mini
max_tokens = 16
[audio]
capture = null:
playback = null:
realtime = no
vad = $source/models/vad/silero.bin
[control]
socket = $dir/socket
group =
[service]
state = $dir/state
log_level = debug
CONF
TMPDIR=$dir/tmp strace -f -qq -o "$dir/trace" -e trace=socket,connect,sendto,sendmsg,openat,creat \
    "$build/parleyd" --config "$dir/conf" 2>"$dir/journal" &
tracer=$!
ctl() { "$build/parley" ctl --socket "$dir/socket" "$@"; }

for ((i = 0; i < 600; i++)); do
    ctl status 2>/dev/null | grep -q "^state: ready" && break
    sleep 0.1
done
pid=$(pgrep -P $tracer)
failed=0
for ((n = 1; n <= turns; n++)); do
    ctl ask "Repeat after me: xylograph$n" || failed=1
    for ((i = 0; i < 300; i++)); do
        [ "$(ctl status | sed -n 's/^turns: //p')" -ge $n ] && break
        sleep 0.05
    done
    sleep 0.3
    ctl stop
done
heard=$(ctl history | grep -c "xylograph")
ctl status | sed -n 's/^turns: /turns: /p; s/^replies: /replies: /p'
kill "$pid"
wait $tracer
pid=""

[ "$heard" -ge 1 ] || { echo "privacy: the history has none of the turns"; failed=1; }
if grep -E "socket\(AF_(INET|INET6|PACKET|NETLINK)" "$dir/trace"; then
    echo "privacy: a socket that is no Unix socket"
    failed=1
fi
found=$(grep -rl xylograph "$dir/state" "$dir/tmp" "$dir/journal")
[ -z "$found" ] || { echo "privacy: words in $found"; failed=1; }
written=$(grep -E 'O_(WRONLY|RDWR|CREAT)' "$dir/trace" | grep -vE "\"($dir/state|/dev/|/proc/)" |
    grep -v ' = -1 ' | grep -vE 'openat\([0-9]+, "\.?[a-z]+\.json')
[ -z "$written" ] || { echo "privacy: written: $written"; failed=1; }
exit $failed
