# tests/boot/guest/faults.sh - kill, stall, clock, sleep, disk, crash loop, configuration.

step_killed() {
    local began back quick=1
    wait_for 120 ready
    [ "$(value uptime_s)" -lt 65 ] || quick=0 # it had settled
    now
    began=$NOW
    kill -9 "$(pid)"
    pause 4 # nobody looks meanwhile, so that it has the processor for itself
    check "it is back after kill -9" 120 ready
    back=$(($(shown ActiveEnterTimestampMonotonic) / 10000 - began))
    judge "... listening after ${back}0 ms, at most 3 s" "" [ $back -le 300 ]
    judge "... which counts as $quick quick crashes" "$(value quick_crashes)" \
        is quick_crashes $quick
}

step_stalled() {
    local before tid tracer
    wait_for 120 ready
    before=$(restarts)
    tid=$(grep -l parley-floor "/proc/$(pid)"/task/*/comm | cut -d/ -f5)
    timeout 100 strace -qq -o /dev/null -p "$tid" -e inject=all:delay_enter=90s &
    tracer=$!
    more_restarts() { [ "$(restarts)" -gt "$before" ]; }
    check "the watchdog ends a stalled thread" 80 more_restarts
    kill $tracer 2>/dev/null
    judge "... and says which one" "$(journalctl -u parleyd -n 5 -o cat)" sh -c \
        "journalctl -u parleyd | grep -q \"the thread 'floor' has made no progress\""
    check "... and it is ready again" 120 ready
}

step_clock() {
    local before then
    before="$(pid) $(restarts)"
    then=$(date +%s)
    date -s "2035-01-01 00:00" >/dev/null
    pause 5
    judge "ready with a clock ten years ahead" "$(value state)" ready
    date -s "2005-01-01 00:00" >/dev/null
    pause 5
    judge "ready with a clock twenty years back" "$(value state)" ready
    judge "... by the same process" "$(pid) $(restarts), before $before" \
        [ "$(pid) $(restarts)" = "$before" ]
    date -s "@$then" >/dev/null
}

step_sleeps() {
    local before
    before="$(pid) $(restarts)"
    judge "the guest sleeps" "rtcwake: $(rtcwake -m mem -s 10 2>&1 | tail -n 1)" \
        sh -c "journalctl -k | grep -q 'PM: suspend entry'"
    pause 5
    check "awake, it is ready" 60 ready
    judge "... by the same process" "$(pid) $(restarts), before $before" \
        [ "$(pid) $(restarts)" = "$before" ]
    check "... and hears" 60 is microphone_lost no
}

step_disk_full() {
    local said fill=/var/lib/parley/state/fill
    dd if=/dev/zero of=$fill bs=1M 2>/dev/null
    dd if=/dev/zero of=$fill.2 bs=512 2>/dev/null
    said=$(parley ctl volume 50 2>&1)
    judge "a full disk is told" "$said" grep -q "No space left" <<<"$said"
    judge "... and it goes on" "$(value volume)" sh -c "parley ctl status | grep -q '^volume: 50'"
    systemctl restart parleyd
    check "... it even starts" 120 ready
    rm $fill $fill.2
    judge "with room again the volume lasts" "" parley ctl volume 100
}

step_crash_loop() {
    local said
    on_loop
    answers() { parley ctl status; }
    running() { [ "$(pid)" -gt 0 ] && answers; }
    for _ in 1 2 3; do
        wait_for 120 running
        kill -9 "$(pid)"
        pause 1
    done
    check "safe mode after three quick crashes" 60 is state safe
    said=$(parley ctl wake 2>&1)
    judge "... says why" "$said" grep -q "safe mode after 3 quick crashes" <<<"$said"
    judge "... and the service counts as $(systemctl is-active parleyd)" "" \
        [ "$(systemctl is-active parleyd)" = activating ]
    systemctl restart parleyd
    check "a restart ends safe mode" 120 ready
}

step_bad_configuration() {
    local said
    configure "[audio]" "volume = 300" >/dev/null 2>&1
    failed() { [ "$(systemctl is-failed parleyd)" = failed ]; }
    check "a bad configuration fails at once" 30 failed
    judge "... with a sentence" "$(journalctl -u parleyd -n 3 -o cat)" sh -c \
        "journalctl -u parleyd | grep -q \"volume: found '300', expected a whole number\""
    said=$(timeout 60 parley ctl status 2>&1)
    judge "... which the control socket tells as well" "$said" \
        grep -q "bad configuration: .*volume: found '300'" <<<"$said"
    check "... and it stays failed" 30 failed
    judge "... with the socket open" "$(systemctl is-active parleyd.socket)" \
        systemctl is-active --quiet parleyd.socket
    on_loop
    check "... a good one starts again" 120 ready
}
