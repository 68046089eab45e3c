# tests/boot/guest/lib.sh - what the steps of the boot test share. Sourced by main.sh.
#
# Reports go to the second serial port, one line each; see ../host.py for their words. Time is the
# guest's own, from /proc/uptime.

conf=/etc/parley/parley.conf
exec 3<>/dev/ttyS1
stty raw -echo <&3

say() { echo "$*" >&3; }
ok() { say "ok $*"; }
bad() { say "bad $*"; }
note() { say "note $*"; }

# host WORD: the host does it; back when it is done. (Steps that look meanwhile say it themselves.)
host() {
    say "host: $1"
    read -r _ <&3
}

# now: the variable NOW becomes the guest's uptime in hundredths of a second, without a new process
now() {
    read -r NOW _ </proc/uptime
    NOW=$((10#${NOW/./}))
}

# pause SECONDS: sleeps without a new process
exec 4<> <(:)
pause() { read -r -t "$1" _ <&4; }

# wait_for SECONDS COMMAND...: until the command is true
wait_for() {
    local end
    now
    end=$((NOW + $1 * 100))
    shift
    until "$@" >/dev/null 2>&1; do
        now
        [ $NOW -lt $end ] || return 1
        pause 0.3
    done
    return 0 # the loop's own status is that of the pause
}

# check NAME SECONDS COMMAND...: one line of the report
check() {
    local name=$1 seconds=$2
    shift 2
    if wait_for "$seconds" "$@"; then
        ok "$name"
    else
        bad "$name: $(systemctl show -p ActiveState,StatusText parleyd | tr '\n' ' ')"
        return 1
    fi
}

# judge NAME WHAT-WAS-SEEN COMMAND...: the command decides now; what it says is shown when it fails
judge() {
    local name=$1 seen=$2 said
    shift 2
    if said=$("$@" 2>&1); then
        ok "$name"
    else
        bad "$name: $seen $(tail -n 1 <<<"$said")"
        return 1
    fi
}

value() { parley ctl status | sed -n "s/^$1: //p"; }
is() { [ "$(value "$1")" = "$2" ]; }
shown() { systemctl show -p "$1" --value parleyd; }
pid() { shown MainPID; }
ready() { systemctl is-active --quiet parleyd && is state ready; }
restarts() { shown NRestarts; }
descriptors() { ls "/proc/$(pid)/fd" | wc -l; }

# configure LINE...: a configuration of these lines only, and a new start
configure() {
    printf '%s\n' "$@" >$conf
    systemctl restart parleyd
}

# What is played to card 7's device 0, subdevice 0 is heard by parleyd; what it says can be recorded
# from device 1, subdevice 1.
capture="capture = alsa:plughw:CARD=Loopback,DEV=1,SUBDEV=0"
playback="playback = alsa:plughw:CARD=Loopback,DEV=0,SUBDEV=1"
# An emulated processor thinks longer.
slow=("[turn]" "think_max_ms = 600000" "slow_ms = 600000")
on_loop() { configure "[audio]" "$capture" "$playback" "${slow[@]}"; }
# ... and less work for it where rounds are counted
light=("rate = 16000" "echo_cancel = no")
