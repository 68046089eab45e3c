#!/bin/bash
# tests/live/talk.sh PARLEY KIND INTERPOSER - a whole conversation through devices of one kind
# (alsa, portaudio) over PulseAudio, the microphone hearing the loudspeaker: a spoken question is
# answered aloud, a longer answer goes on after "uh-huh" and is then interrupted, the sound server
# is killed and comes back, and Ctrl-C ends it. INTERPOSER, the library of interpose.c, must find
# nothing that an audio thread must not do. KEEP=FILE keeps the event log.
set -u
parley=$1 kind=$2 interposer=$3
here=$(cd "$(dirname "$0")/../.." && pwd)
voices=$here/tests/replay/voices
. "$here/tests/live/rig.sh"
rig_need
[ -e "$here/models/parley-mini/model.safetensors.index.json" ] || rig_skip "parley-mini is not here"
rig_start
rig_echo 30
events=$rig_dir/events seen=0

fail() {
    [ -z "${KEEP-}" ] || cp "$events" "$KEEP"
    echo "talk: $*"
    echo "-- events since the last step"
    tail -n +$((seen + 1)) "$events" | grep -v '"word"' | cut -c1-200 | tail -n 25
    grep -v -i jack "$rig_dir/stderr" | tail -n 5
    kill -9 "$talk" 2>/dev/null
    exit 1
}

# since TEXT SECONDS: a line with TEXT comes behind those seen so far.
await() {
    local i
    for i in $(seq $(($2 * 20))); do
        tail -n +$((seen + 1)) "$events" 2>/dev/null | grep -q "$1" && return 0
        kill -0 "$talk" 2>/dev/null || fail "it ended by itself"
        sleep 0.05
    done
    fail "no line with $1 within $2 s"
}

never() {
    tail -n +$((seen + 1)) "$events" | grep -q "$1" && fail "a line with $1"
}

# Everything so far is seen.
next() {
    echo "$1"
    seen=$(wc -l <"$events")
}

# Places in the log, in ms.
when() {
    tail -n +$((seen + 1)) "$events" | grep -m 1 "$1" | sed 's/.*"ms":\([0-9]*\).*/\1/'
}

LD_PRELOAD=$interposer PARLEY_INTERPOSE=$rig_dir/rules "$parley" talk --plain --threads 1 \
    --model "$here/models/parley-mini" --vad "$here/models/vad/silero.bin" \
    --capture "$kind:rig_mic" --playback "$kind:rig_spk" --events "$events" \
    >"$rig_dir/out" 2>"$rig_dir/stderr" &
talk=$!
for i in $(seq 200); do
    grep -q loudspeaker: "$rig_dir/out" && break
    kill -0 "$talk" 2>/dev/null || break
    sleep 0.1
done
kill -0 "$talk" 2>/dev/null || fail "it does not start"
sleep 1
next "it listens"

rig_record "$rig_dir/answer.wav"
rig_say "$here/etc/demo/capital.wav"
await answer_ended 20
await '"said".*Paris' 1
never truncate
kill "$rig_recorder" && wait "$rig_recorder" 2>/dev/null
rig_recorder=""
python3 - "$rig_dir/answer.wav" <<'END' || fail "the answer was not to be heard"
import array, sys
samples = array.array("h", open(sys.argv[1], "rb").read()[44:][:-1 & ~1])
sys.exit(sum(abs(x) > 1000 for x in samples) < 4000)
END
next "asked, and answered aloud"

rig_say "$voices/count-twenty.flac"
await '"play"' 20
sleep 1.5
rig_say "$voices/uh-huh.flac"
sleep 1.5
never truncate
never answer_ended
when '"hold"' | grep -q . && await '"resume"' 3
next "uh-huh: it goes on"

rig_say "$here/etc/demo/sum.wav"
await '"truncate"' 3
await '"said".*fifteen' 15
await answer_ended 10
next "interrupted, and answered"

rig_kill
await mic_lost 5
await speaker_lost 5
rig_up
back=$(date +%s%N)
await mic_back 5
await speaker_back 5
ms=$((($(date +%s%N) - back) / 1000000))
[ "$ms" -le 3000 ] || fail "sound was back after $ms ms" # 2 s, and one for a busy machine
rig_echo 30
sleep 1
next "server killed and started: sound is back after $ms ms"

rig_say "$here/etc/demo/sum.wav"
await '"said".*fifteen' 20
await answer_ended 10
next "asked again, and answered"

[ -z "${KEEP-}" ] || cp "$events" "$KEEP"
kill -INT "$talk"
for i in $(seq 40); do
    kill -0 "$talk" 2>/dev/null || break
    sleep 0.05
done
kill -0 "$talk" 2>/dev/null && fail "Ctrl-C does not end it within 2 s"
wait "$talk" || fail "Ctrl-C: exit code $?"
rig_rules "$rig_dir/rules" || exit 1
grep -v -i jack "$rig_dir/stderr" | tail -n 1
