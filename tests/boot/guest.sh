#!/bin/bash
# tests/boot/guest.sh - runs inside the guest: one line for each step on the second serial
# port, "ok NAME" or "bad NAME: what was seen". "host: WORD" asks the host to plug something.
set -u
exec 3>/dev/ttyS1
conf=/etc/parley/parley.conf

say() { echo "$*" >&3; }
ok() { say "ok $*"; }
bad() { say "bad $*"; }

# wait_for SECONDS COMMAND...: until the command is true
wait_for() {
    local left=$(($1 * 2))
    shift
    while ! "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ $left -gt 0 ] || return 1
        sleep 0.5
    done
}

# check NAME SECONDS COMMAND...
check() {
    local name=$1 seconds=$2
    shift 2
    if wait_for "$seconds" "$@"; then
        ok "$name"
    else
        bad "$name: $(systemctl show -p ActiveState,StatusText parleyd | tr '\n' ' ')"
    fi
}

value() { parley ctl status | sed -n "s/^$1: //p"; }
is() { [ "$(value "$1")" = "$2" ]; }
pid() { systemctl show -p MainPID --value parleyd; }
ready() { systemctl is-active --quiet parleyd && is state ready; }
restarts() { systemctl show -p NRestarts --value parleyd; }
descriptors() { ls "/proc/$(pid)/fd" | wc -l; }
card() { grep -q "\[$1 *\]" /proc/asound/cards; }
no_card() { ! card "$1"; }

# configure SECTION-LINES...: a configuration of these lines only, and a new start
configure() {
    printf '%s\n' "$@" >$conf
    systemctl restart parleyd
}

loop=("[audio]" "capture = alsa:plughw:CARD=Loopback,DEV=1,SUBDEV=0"
    "playback = alsa:plughw:CARD=Loopback,DEV=0,SUBDEV=1")
slow=("[turn]" "think_max_ms = 600000" "slow_ms = 600000" "[service]" "stall_s = 60")

# -- It comes up by itself.
check "the loop of sound cards is there" 60 card Loopback
check "parleyd answers after boot, or waits for a sound card" 180 \
    sh -c 'parley ctl status | grep -qE "^state: (ready|opening)"'
configure "${loop[@]}" "${slow[@]}"
check "ready" 180 ready
check "it runs as its own user" 1 sh -c "ps -o user= -p $(pid) | grep -q parley"
[ "$(readlink /proc/1/ns/net)" != "$(readlink "/proc/$(pid)/ns/net")" ] &&
    ok "it has no network" || bad "it has no network"

# -- Who may speak to it.
if setpriv --reuid=65534 --regid=65534 --clear-groups parley ctl status >/dev/null 2>&1; then
    bad "strangers are refused"
else
    ok "strangers are refused"
fi
check "members of the group are not" 5 \
    setpriv --reuid=65534 --regid=65534 --groups="$(getent group parley | cut -d: -f3)" \
    parley ctl status

# -- A question is answered.
arecord -q -D plughw:CARD=Loopback,DEV=1,SUBDEV=1 -f S16_LE -r 48000 -c 1 /opt/answer.wav &
recorder=$!
sleep 2
aplay -q -D plughw:CARD=Loopback,DEV=0,SUBDEV=0 /opt/question.wav
answered() { [ "$(value replies)" -ge 1 ]; }
check "a spoken question is answered" 300 answered
sleep 20
kill $recorder
loud=$(tail -c +45 /opt/answer.wav | od -An -v -td2 -w2 | awk '$1 > 1000 || $1 < -1000' | wc -l)
[ "$loud" -gt 1000 ] && ok "... with sound" || bad "... with sound: $loud loud samples"

# -- Muted for good.
parley ctl mute && systemctl restart parleyd
check "mute outlasts a restart" 180 is muted yes
closed() { ! ls -l "/proc/$(pid)/fd" | grep -q 'pcmC.*c$'; }
check "... and the microphone is closed" 30 closed
parley ctl unmute
check "unmuted again" 30 is muted no

# -- Killed.
wait_for 180 ready
sleep 70 # so that it has settled
kill -9 "$(pid)"
sleep 1
check "it is back after kill -9" 180 ready
is quick_crashes 0 && ok "... which was no quick crash" || bad "... quick: $(value quick_crashes)"

# -- A thread that stands still.
before=$(restarts)
tid=$(grep -l parley-floor "/proc/$(pid)"/task/*/comm | cut -d/ -f5)
timeout 150 strace -qq -o /dev/null -p "$tid" -e inject=all:delay_enter=120s &
more_restarts() { [ "$(restarts)" -gt "$before" ]; }
check "the watchdog ends a stalled thread" 200 more_restarts
check "... and it is ready again" 180 ready

# -- The clock jumps.
before=$(restarts)
date -s "2030-01-01 00:00" >/dev/null
sleep 5
date -s "2021-01-01 00:00" >/dev/null
sleep 30
ready && [ "$(restarts)" = "$before" ] && ok "clock jumps of years" || bad "clock jumps of years"

# -- Sleep.
before=$(restarts)
rtcwake -q -m mem -s 10
sleep 5
check "suspend and wake" 60 ready
[ "$(restarts)" = "$before" ] && ok "... without a restart" || bad "... without a restart"

# -- No room on the disk.
dd if=/dev/zero of=/var/lib/parley/state/fill bs=1M 2>/dev/null
dd if=/dev/zero of=/var/lib/parley/state/fill2 bs=512 2>/dev/null
said=$(parley ctl volume 50 2>&1)
echo "$said" | grep -q "No space left" && ok "a full disk is told" ||
    bad "a full disk is told: $said"
is volume 50 && ready && ok "... and it goes on" || bad "... and it goes on"
rm /var/lib/parley/state/fill*
parley ctl volume 100

# -- Cards that go and come.
plug() { # CARD WORD DIRECTION-KEY
    local before now fds
    before=$(restarts)
    fds=$(descriptors)
    for round in 1 2 3; do
        say "host: $2-del"
        wait_for 60 no_card "$1"
        wait_for 60 is "$3" yes || { bad "$1 unplugged, round $round"; return; }
        say "host: $2-add"
        wait_for 60 card "$1"
        wait_for 60 is "$3" no || { bad "$1 plugged in again, round $round"; return; }
    done
    now=$(descriptors)
    [ "$(restarts)" = "$before" ] && ok "$1: three times unplugged, no restart" ||
        bad "$1: $(restarts) restarts, before $before"
    [ "$now" -le "$fds" ] && ok "$1: no descriptors lost" || bad "$1: $fds descriptors, now $now"
}
usb=$(sed -n 's/.*\[\([^ ]*\) *\].*USB.*/\1/p' /proc/asound/cards | head -n 1)
configure "${loop[@]:0:2}" "playback = alsa:plughw:CARD=${usb:-none}" "${slow[@]}"
check "USB loudspeaker '$usb'" 180 ready
plug "$usb" usb speaker_lost
hda=$(sed -n 's/.*\[\([^ ]*\) *\].*HDA.*/\1/p' /proc/asound/cards | head -n 1)
configure "[audio]" "capture = alsa:plughw:CARD=${hda:-none}" "${loop[2]}" "${slow[@]}"
check "HDA microphone '$hda'" 180 ready
plug "$hda" hda microphone_lost

# -- A crash loop ends in safe mode; a restart ends that.
for i in 1 2 3; do
    wait_for 180 sh -c "[ \$(systemctl show -p MainPID --value parleyd) -gt 0 ]"
    wait_for 60 parley ctl status
    kill -9 "$(pid)"
    sleep 2
done
check "safe mode after three quick crashes" 60 is state safe
parley ctl wake 2>&1 | grep -q "safe mode after 3 quick crashes" && ok "... says why" ||
    bad "... says why: $(parley ctl wake 2>&1)"
configure "${loop[@]}" "${slow[@]}"
check "a restart ends safe mode" 180 ready

# -- A bad configuration is told and not tried again.
configure "[audio]" "volume = 300" >/dev/null 2>&1
failed() { [ "$(systemctl is-failed parleyd)" = failed ]; }
check "a bad configuration fails at once" 30 failed
journalctl -u parleyd | grep -q "volume: found '300', expected a whole number" &&
    ok "... with a sentence" || bad "... with a sentence"

# -- Nothing that was said is anywhere.
journalctl | grep -qi paris && bad "no word in the journal" || ok "no word in the journal"
grep -rqi paris /var/lib/parley/state /tmp /var/tmp 2>/dev/null && bad "no word on the disk" ||
    ok "no word on the disk"

# -- It goes without a trace of running.
systemctl stop parleyd.socket parleyd
say "log: $(journalctl -u parleyd | wc -l) lines of parleyd in the journal"
journalctl -u parleyd --no-pager >/dev/console
say "end"
poweroff -f
