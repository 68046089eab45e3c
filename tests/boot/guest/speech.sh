# tests/boot/guest/speech.sh - who may speak to it; a question is answered; mute.

step_access() {
    on_loop
    check "ready on the loop" 120 ready
    judge "strangers are refused" "an answer" \
        sh -c "! setpriv --reuid=65534 --regid=65534 --clear-groups parley ctl status"
    judge "members of the group are not" "no answer" setpriv --reuid=65534 --regid=65534 \
        --groups="$(getent group parley | cut -d: -f3)" parley ctl status
}

# Samples of a WAV file (16 bit) beyond so much
loud() { tail -c +45 "$1" | od -An -v -td2 -w2 | awk -v l="$2" '$1 > l || $1 < -l' | wc -l; }

step_answers() {
    local heard watcher recorder
    wait_for 120 ready
    parley ctl watch >/run/watch &
    watcher=$!
    arecord -q -D plughw:CARD=Loopback,DEV=1,SUBDEV=1 -f S16_LE -r 16000 -c 1 /run/answer.wav &
    recorder=$!
    pause 3
    aplay -q -D plughw:CARD=Loopback,DEV=0,SUBDEV=0 "$here/question.wav"
    check "a spoken question is answered" 300 grep -q '"event":"memory"' /run/watch
    kill $watcher $recorder
    heard=$(sed -n 's/.*"event":"memory".*"text":"\([^"]*\)".*/\1/p' /run/watch | head -n 1)
    note "the answer, of which this was heard: $heard"
    judge "... with the right words" "$heard" grep -q Paris <<<"$heard"
    heard=$(loud /run/answer.wav 1000)
    judge "... and sound on the loudspeaker ($heard loud samples of 16 kHz)" "" \
        [ "$heard" -gt 1600 ]
    rm /run/watch /run/answer.wav
}

step_mutes() {
    closed() { ! ls -l "/proc/$(pid)/fd" | grep -q 'pcmC.*c$'; }
    opened() { ls -l "/proc/$(pid)/fd" | grep -q 'pcmC.*c$'; }
    check "the microphone is open" 30 opened
    parley ctl mute
    check "muted, it is closed" 30 closed
    systemctl restart parleyd
    wait_for 120 ready
    check "mute outlasts a restart" 5 is muted yes
    check "... and the microphone stays closed" 5 closed
    parley ctl unmute
    check "unmuted, it is open" 30 opened
}
