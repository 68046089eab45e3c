# tests/live/rig.sh - a sound card for tests: a private PulseAudio with two null sinks. Sourced.
#
#   rig_need         exits with 77 and a reason when the server or ALSA's plugin for it is missing
#   rig_start        starts the server and waits until it answers
#   rig_kill         kills it, as if everything were unplugged
#   rig_stop         ends it and removes its files (also done when the shell exits)
#   rig_say FILE     plays a recording into the microphone
#   rig_echo MS      from now on the microphone hears the loudspeaker, so much later (a room)
#   rig_record FILE  records what the loudspeaker plays, in the background; rig_recorder is its pid
#   rig_rules FILE   shows what the interposer found, false if audio threads broke the rules
#
# Devices: alsa:rig_mic, alsa:rig_spk, alsa:rig_loop (a microphone in the loudspeaker), and for
# PortAudio the same names.

rig_dir=""
rig_server=""
rig_recorder=""
rig_first=""

rig_skip() {
    echo "skip: $*"
    exit 77
}

rig_need() {
    command -v pulseaudio >/dev/null || rig_skip "pulseaudio is not installed"
    command -v pactl >/dev/null || rig_skip "pulseaudio-utils is not installed"
    local found
    found=$(find /usr/lib /usr/lib64 -name libasound_module_pcm_pulse.so 2>/dev/null | head -n 1)
    [ -n "$found" ] || rig_skip "libasound2-plugins is not installed"
}

rig_configure() {
    local pcm
    echo "</usr/share/alsa/alsa.conf>"
    for pcm in "rig_mic mic.monitor" "rig_spk spk" "rig_loop spk.monitor"; do
        set -- $pcm
        echo "pcm.$1 { type pulse device $2 hint { show on description $1 } }"
    done
}

# The protocol comes last: nobody shall find the server before its sinks. It and what speaks into it
# run before everything else where that is allowed: neither a sound card nor a person waits for a
# busy machine.
rig_up() {
    env -u DISPLAY $rig_first pulseaudio --daemonize=no --exit-idle-time=-1 --use-pid-file=no -n \
        --high-priority=no --log-target=stderr \
        -L "module-null-sink sink_name=mic rate=48000 channels=1 norewinds=1" \
        -L "module-null-sink sink_name=spk rate=48000 channels=1 norewinds=1" \
        -L "module-native-protocol-unix auth-anonymous=1 socket=$rig_dir/native" \
        >"$rig_dir/log" 2>&1 &
    rig_server=$!
    local i
    for i in $(seq 200); do
        pactl info >/dev/null 2>&1 && return 0
        kill -0 "$rig_server" 2>/dev/null || break
        sleep 0.05
    done
    tail -n 3 "$rig_dir/log"
    rig_skip "a private pulseaudio does not start here"
}

rig_start() {
    chrt -f 5 true 2>/dev/null && rig_first="chrt -f 5"
    rig_dir=$(mktemp -d) || exit 1
    chmod 700 "$rig_dir"
    trap rig_stop EXIT
    export XDG_RUNTIME_DIR=$rig_dir XDG_CONFIG_HOME=$rig_dir HOME=$rig_dir
    export PULSE_SERVER=unix:$rig_dir/native PULSE_LATENCY_MSEC=30
    export ALSA_CONFIG_PATH=$rig_dir/alsa.conf
    export JACK_NO_START_SERVER=1
    # Without shared memory: a client whose server dies while it holds a block of its memory hangs
    # for ever inside libpulse 16 (pa_memimport_free).
    export PULSE_CLIENTCONFIG=$rig_dir/client.conf
    printf 'enable-shm = no\nautospawn = no\n' >"$PULSE_CLIENTCONFIG"
    rig_configure >"$ALSA_CONFIG_PATH"
    rig_up
}

rig_kill() {
    kill -9 "$rig_server" 2>/dev/null
    wait "$rig_server" 2>/dev/null
    rm -f "$rig_dir/native"
}

rig_stop() {
    [ -n "$rig_recorder" ] && kill "$rig_recorder" 2>/dev/null
    [ -n "$rig_server" ] && kill "$rig_server" 2>/dev/null && wait "$rig_server" 2>/dev/null
    [ -n "$rig_dir" ] && rm -rf "$rig_dir"
    rig_dir="" rig_server="" rig_recorder=""
}

rig_say() {
    $rig_first paplay --device=mic "$1"
}

rig_echo() {
    pactl load-module module-loopback source=spk.monitor sink=mic latency_msec="$1" >/dev/null
}

rig_rules() {
    [ -s "$1" ] || { echo "the interposer saw no audio thread"; return 1; }
    sed 's/^/  /' "$1"
    grep -q '^ours: .*first from' "$1" || return 0
    echo "an audio thread broke the rules of real time"
    return 1
}

rig_record() {
    $rig_first parec --device=spk.monitor --rate=48000 --channels=1 --file-format=wav "$1" &
    rig_recorder=$!
}
