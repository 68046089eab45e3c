# tests/boot/guest/cards.sh - cards that go and come: CYCLES of a USB loudspeaker, as many of an HDA
# microphone. After each one sound has to run again within 2 s of the card's return.

# card_of KIND: the name of the first card of this kind (USB-Audio, HDA-Intel)
card_of() { sed -n "s/.*\[\([^ ]*\) *\]: $1.*/\1/p" /proc/asound/cards | head -n 1; }

# runs PCM: its only subdevice moves samples
runs() {
    local line
    while read -r line; do
        [ "$line" = "state: RUNNING" ] && return 0
    done 2>/dev/null <"/proc/asound/$card/$1/sub0/status"
    return 1
}

# A USB card goes and comes by the host's hand. QEMU lets an HDA controller be pulled out as well,
# but not put back with its codec: here the bus removes it in mid-stream, and finds it again.
pull_usb() { host usb-del; }
put_usb() { say "host: usb-add"; }
put_usb_done() { read -r _ <&3; }
pull_hda() { echo 1 >"$pci/remove"; }
put_hda() { echo 1 >/sys/bus/pci/rescan & }
put_hda_done() { wait $!; }

# cycle KIND PCM KEY: out and in again; TOOK becomes the hundredths of a second from the card's
# return to running sound
cycle() {
    local began
    "pull_$1"
    wait_for 60 is "$3" yes || return 1
    "put_$1"
    while [ ! -e "/proc/asound/$card/$2" ]; do
        pause 0.02
    done
    now
    began=$NOW
    until runs "$2"; do
        now
        [ $NOW -lt $((began + 1000)) ] || break
        pause 0.02
    done
    now
    TOOK=$((NOW - began))
    "put_$1_done"
    wait_for 20 is "$3" no
}

# cycles NUMBER KIND PCM KEY
cycles() {
    local before fds round worst=0 late=0 fd_now
    before="$(pid) $(restarts)"
    fds=$(descriptors)
    for ((round = 1; round <= $1; round++)); do
        cycle "$2" "$3" "$4" || {
            bad "$card, round $round: $4 is $(value "$4")"
            return
        }
        [ $TOOK -le $worst ] || worst=$TOOK
        [ $TOOK -le 200 ] || late=$((late + 1))
        [ $((round % 20)) != 0 ] || note "$card: $round rounds, sound after ${worst}0 ms at most"
    done
    judge "$card: $1 times pulled out and put back, no restart" "$(pid) $(restarts), was $before" \
        [ "$(pid) $(restarts)" = "$before" ]
    judge "$card: sound at most ${worst}0 ms after it is back, bar 2 s" "$late times later" \
        [ $late = 0 ]
    fd_now=$(descriptors)
    judge "$card: $fds descriptors before, $fd_now after" "more" [ "$fd_now" -le "$fds" ]
}

step_cards_usb() {
    card=$(card_of USB-Audio)
    configure "[audio]" "$capture" "playback = alsa:plughw:CARD=$card" "${light[@]}" \
        "${slow[@]}"
    check "USB loudspeaker '$card'" 120 ready
    cycles "$(cat "$here/cycles")" usb pcm0p speaker_lost
}

step_cards_hda() {
    card=$(card_of HDA-Intel)
    pci=$(realpath "/sys/class/sound/$(readlink "/proc/asound/$card")/device")
    pull_hda
    configure "[audio]" "capture = alsa:plughw:CARD=$card" "$playback" "${light[@]}" \
        "${slow[@]}" &
    check "without its microphone it waits, and says so" 120 \
        sh -c "systemctl show -p StatusText parleyd | grep waiting"
    put_hda
    check "HDA microphone '$card' comes, and it is ready" 120 ready
    wait
    cycles "$(cat "$here/cycles")" hda pcm0c microphone_lost
    host hda-del
    check "$card pulled out for good: it goes on" 60 is microphone_lost yes
    on_loop
}
