# tests/boot/guest/install.sh - the package comes, is enabled, is there after a boot, goes.

loop_is_there() { grep -q Loopback /proc/asound/cards; }

step_install() {
    check "the guest is up, with a loop of sound cards" 60 loop_is_there
    judge "the package is installed" "" dpkg -i "$here/parley.deb"
    judge "a user of its own, the small model as the current one" \
        "$(getent passwd parley) $(ls -l /var/lib/parley/models)" \
        sh -c "getent passwd parley && [ -e /var/lib/parley/models/current/config.json ]"
    judge "systemctl enable --now parleyd" "" systemctl enable --now parleyd
    check "... becomes ready with the configuration as it came" 120 ready ||
        journalctl -u parleyd --no-pager -n 20 >/dev/console
}

step_comes_up() {
    check "after a boot it is ready by itself" 180 ready
    judge "... without a restart" "$(restarts) restarts" [ "$(restarts)" = 0 ]
    note "ready $(($(shown ActiveEnterTimestampMonotonic) / 1000000)) s after the kernel's start"
}

step_sandbox() {
    local figure
    for gpu in no yes; do
        cp /usr/lib/systemd/system/parleyd.service /run/judged.service
        [ $gpu = no ] || cat /usr/share/parley/gpu.conf >>/run/judged.service
        figure=$(systemd-analyze security --offline=true /run/judged.service |
            sed -n 's/.*level for [^:]*: \([0-9.]*\) .*/\1/p')
        if [ $gpu = no ]; then
            judge "exposure $figure, at most 1.0" "" [ "${figure/./}" -le 10 ]
        else
            judge "exposure with the GPU drop-in $figure, at most 1.5" "" [ "${figure/./}" -le 15 ]
        fi
    done
    judge "it runs as its own user" "$(ps -o user= -p "$(pid)")" \
        [ "$(ps -o user= -p "$(pid)")" = parley ]
    judge "it has a network of its own" "" \
        [ "$(readlink /proc/1/ns/net)" != "$(readlink "/proc/$(pid)/ns/net")" ]
}

# Without a microphone it is not ready, and an upgrade must not wait until it is.
step_reinstall() {
    local before
    printf '%s\n' "[audio]" "capture = alsa:hw:CARD=nowhere" >$conf
    systemctl restart --no-block parleyd
    check "it waits for a microphone" 120 is state opening
    before=$(pid)
    judge "the package is installed again over itself" "" timeout 300 dpkg -i "$here/parley.deb"
    renewed() { [ "$(pid)" != "$before" ] && is state opening; }
    check "... and a new process waits" 120 renewed
    judge "... with the owner's configuration" "$(head -n 3 $conf)" grep -q nowhere $conf
    on_loop
    check "... and is ready once there is one" 120 ready
}

step_purge() {
    judge "the package is purged" "" dpkg --purge parley
    judge "... and nothing runs" "" sh -c "! pgrep -l parleyd"
    judge "... nor is left" "" sh -c "! ls -d /etc/parley /var/lib/parley /run/parley 2>&1 |
        grep -v 'cannot access'"
}
