# tests/boot/guest/privacy.sh - TURNS turns with a word of its own each, every socket watched: no
# network, no packet, no word anywhere.

sent() { cat /sys/class/net/"$1"/statistics/tx_packets; }

# A network that packets could leave by, and the proof that they would be counted.
open_network() {
    nic=$(ls /sys/class/net | grep -v lo | head -n 1)
    sysctl -q net.ipv6.conf.all.disable_ipv6=1
    ip link set "$nic" up
    ip address add 10.0.2.15/24 dev "$nic"
    ip route add default via 10.0.2.2
    pause 3
    local before
    before=$(sent "$nic")
    (exec 9<>/dev/udp/10.0.2.2/9 && echo >&9) 2>/dev/null
    pause 1
    judge "a packet that leaves by $nic is counted" "$before, $(sent "$nic")" \
        [ "$(sent "$nic")" -gt "$before" ]
}

# turn NUMBER: asked, begun to be answered, cut off
turn() {
    parley ctl ask "Repeat after me: $word$1" || return 1
    begun() { [ "$(value turns)" -ge "$n" ]; }
    wait_for 120 begun || return 1
    pause 0.2
    parley ctl stop
}

step_network() {
    local turns before n tracer calls
    turns=$(cat "$here/turns")
    word=quince$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')x # never written to a disk by us
    echo "$word" >/run/word
    configure "[audio]" "$capture" "$playback" "${light[@]}" "${slow[@]}" \
        "[model]" "max_tokens = 6" "[service]" "log_level = debug"
    wait_for 120 ready
    open_network
    mkdir /run/trace
    # From the first call on: the service manager is traced, and whom it starts.
    strace -qq -ff -s 0 -o /run/trace/t -p 1 \
        -e trace=execve,socket,connect,bind,sendto,sendmsg,sendmmsg &
    tracer=$!
    pause 2
    systemctl restart parleyd
    wait_for 120 ready
    before=$(sent "$nic")
    for ((n = 1; n <= turns; n++)); do
        turn $n || break
        [ $((n % 20)) != 0 ] || note "$n turns"
    done
    judge "$turns turns under strace" "ended at turn $n: $(value floor)" [ $n -gt "$turns" ]
    note "$(value turns) turns, $(value replies) of them were begun to be answered aloud"
    judge "no packet left meanwhile" "$before, $(sent "$nic")" [ "$(sent "$nic")" = "$before" ]
    calls=$(for t in /proc/"$(pid)"/task/*; do
        sed '0,/execve.*parleyd/d' "/run/trace/t.${t##*/}" 2>/dev/null
        grep -L 'execve.*parleyd' "/run/trace/t.${t##*/}" 2>/dev/null | xargs -r cat
    done)
    kill $tracer
    note "sockets it made: $(grep -c 'socket(' <<<"$calls"), calls seen: $(wc -l <<<"$calls")"
    judge "strace saw it speak" "$(head -n 2 <<<"$calls")" grep -q 'sendmsg\|sendto' <<<"$calls"
    judge "no socket but of Unix" "$(grep 'socket(' <<<"$calls" | grep -v AF_UNIX | head -n 1)" \
        sh -c '! grep "socket(" | grep -qv AF_UNIX' <<<"$calls"
    judge "its own network has sent nothing" "$(cat "/proc/$(pid)/net/dev")" \
        awk '/:/ && $10 > 0 { exit 1 }' "/proc/$(pid)/net/dev"
    rm -r /run/trace
}

step_words() {
    local word n
    word=$(cat /run/word)
    n=$(parley ctl history | grep -c "$word")
    judge "the words are in the history, in memory ($n of them)" "" [ "$n" -ge 1 ]
    judge "... not in the journal" "" sh -c "! journalctl -b | grep -m 1 $word"
    judge "... not in files that live in memory" "" \
        sh -c "! grep -rl --exclude=word $word /run /dev/shm"
    sync
    # The whole device: files of every folder, deleted ones too.
    judge "... nowhere on the disk" "$(find / -xdev -type f -newer "$here/installed" -exec \
        grep -l "$word" {} + | head -n 1)" sh -c "! grep -q $word /dev/sda"
    parley ctl forget
    n=$(parley ctl history | grep -c "$word")
    judge "... and forgotten when told to" "$n" [ "$n" = 0 ]
}
