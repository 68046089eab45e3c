#!/bin/bash
# tests/boot/guest/main.sh - runs inside the guest at each boot: the first time it installs the
# package and boots again, the second time it breaks things. `boot_check=STEP` on the kernel's
# command line picks steps.
set -u
here=$(dirname "$0")
. "$here/lib.sh"
for file in install speech faults cards privacy; do
    . "$here/$file.sh"
done
steps="comes_up sandbox access answers mutes stalled clock disk_full cards_hda cards_usb killed
       sleeps crash_loop bad_configuration network words reinstall purge"

picked=$(sed -n 's/^boot_check=//p' < <(tr ' ' '\n' </proc/cmdline))
if [ ! -e "$here/installed" ]; then
    touch "$here/installed"
    step_install
    if [ -z "$picked" ]; then
        sync
        systemctl reboot
        exit
    fi
fi
for step in ${picked:-$steps}; do
    now
    began=$NOW
    step_"$step"
    now
    note "($step: $(((NOW - began) / 100)) s of the guest's time)"
done
journalctl -u parleyd --no-pager >/dev/console
say "end"
pause 1
poweroff -f
