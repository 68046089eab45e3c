#!/usr/bin/env python3
"""tests/boot/host.py - boots the guest, prints what it reports, plugs what it asks for.

    host.py IMAGE KERNEL INITRD LOGS

The guest writes lines to its second serial port (guest.sh); QMP is the way to pull cards out. Exit
status 0 if every step passed and the guest came to its end.
"""
import json
import os
import socket
import subprocess
import sys
import time

PATIENCE_S = 3600
ARGUMENTS = [
    "-accel", "tcg,thread=multi", "-machine", "pc", "-cpu", "max", "-smp", "2", "-m", "1536",
    "-nodefaults", "-display", "none", "-no-reboot",
    "-audiodev", "none,id=silence", "-device", "qemu-xhci,id=xhci",
]
CARDS = {
    "usb": {"driver": "usb-audio", "id": "usbcard", "bus": "xhci.0", "audiodev": "silence"},
    "hda": {"driver": "intel-hda", "id": "hdacard", "bus": "pci.0"},
    "codec": {"driver": "hda-duplex", "id": "hdacodec", "bus": "hdacard.0", "audiodev": "silence"},
}


def option(card):
    return card["driver"] + "".join(f",{k}={v}" for k, v in card.items() if k != "driver")


def listen(path):
    if os.path.exists(path):
        os.unlink(path)
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    s.listen(1)
    s.settimeout(60)
    return s


class Monitor:
    """QMP: one command, one answer; events between them are passed over."""

    def __init__(self, connection):
        self.lines = connection.makefile("rw")
        self.lines.readline()
        self.command("qmp_capabilities")

    def command(self, name, **arguments):
        self.lines.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.lines.flush()
        while True:
            answer = json.loads(self.lines.readline())
            if "return" in answer or "error" in answer:
                return answer

    def wait_gone(self, name):
        """Until the guest has let go of a device."""
        for _ in range(600):
            found = self.command("qom-list", path="/machine/peripheral").get("return", [])
            if all(item["name"] != name for item in found):
                return
            time.sleep(0.1)

    def add(self, card):
        answer = self.command("device_add", **card)
        if "error" in answer:
            print("  host:", answer["error"]["desc"])

    def obey(self, word):
        what, action = word.split("-")
        if action == "del":
            self.command("device_del", id=CARDS[what]["id"])
            self.wait_gone(CARDS[what]["id"])
        else:
            self.add(CARDS[what])
            if what == "hda":
                self.add(CARDS["codec"])


def start(image, kernel, initrd, logs):
    reports, monitor = listen(f"{logs}/reports"), listen(f"{logs}/monitor")
    process = subprocess.Popen(
        ["qemu-system-x86_64", *ARGUMENTS, "-kernel", kernel, "-initrd", initrd,
         "-append", "root=/dev/sda rw console=ttyS0 quiet systemd.show_status=0",
         "-drive", f"file={image},if=ide,format=raw,snapshot=on",
         "-device", option(CARDS["usb"]), "-device", option(CARDS["hda"]),
         "-device", option(CARDS["codec"]),
         "-serial", f"file:{logs}/console.log", "-chardev", f"socket,id=r,path={logs}/reports",
         "-serial", "chardev:r", "-chardev", f"socket,id=m,path={logs}/monitor",
         "-mon", "chardev=m,mode=control"])
    return process, reports.accept()[0], Monitor(monitor.accept()[0])


def main(image, kernel, initrd, logs):
    process, reports, monitor = start(image, kernel, initrd, logs)
    began = time.monotonic()
    passed = failed = 0
    whole = False
    reports.settimeout(PATIENCE_S)
    try:
        for line in reports.makefile("r", errors="replace"):
            line = line.strip()
            kind, _, text = line.partition(" ")
            passed += kind == "ok"
            failed += kind == "bad"
            whole = whole or kind == "end"
            if kind == "host:":
                monitor.obey(text)
            elif line:
                print(f"  {time.monotonic() - began:6.0f} s  {line}", flush=True)
            if whole:
                break
    except TimeoutError:
        print(f"boot: nothing was heard for {PATIENCE_S} s")
    try:
        process.wait(30 if whole else 1)
    except subprocess.TimeoutExpired:
        process.kill()
    if not whole:
        print(f"boot: the guest did not come to its end; its console is in {logs}/console.log")
        failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
