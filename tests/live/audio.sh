#!/bin/bash
# tests/live/audio.sh PROGRAM KIND - the devices of one kind (alsa, portaudio) over PulseAudio: what
# is played comes back, and after the server was killed and started sound is back within 2 s.
# PROGRAM is tests/live/live_audio.c. Its own interposer's report must say that the audio threads
# called nothing they must not.
set -u
program=$1 kind=$2
. "$(dirname "$0")/rig.sh"
rig_need
rig_start
failed=0

rules() {
    rig_rules "$PARLEY_INTERPOSE" || failed=1
    rm -f "$PARLEY_INTERPOSE"
}

# What is played must come back at its place. A sound server that is kept waiting by other work
# shifts it now and then, so one of three times must be good; the rules hold each time.
loops() {
    local try good
    for try in 1 2 3; do
        "$program" "$kind:rig_loop" "$kind:rig_spk" loop 2>"$rig_dir/stderr"
        good=$?
        rules
        [ "$good" = 0 ] && return
        echo "time $try of 3 was not good"
    done
    failed=1
}

export PARLEY_INTERPOSE=$rig_dir/rules
loops

coproc talk { exec "$program" "$kind:rig_loop" "$kind:rig_spk" restart 2>"$rig_dir/stderr"; }
pid=$talk_PID
exec {from}<&"${talk[0]}" {to}>&"${talk[1]}"
while read -r -u "$from" line; do
    echo "$line"
    case $line in
    kill) rig_kill ;;
    start)
        sleep 1
        rig_up
        echo up >&"$to"
        ;;
    esac
done
wait "$pid" || failed=1
rules
[ "$failed" = 0 ] || grep -v -i jack "$rig_dir/stderr" | tail -n 5
exit "$failed"
