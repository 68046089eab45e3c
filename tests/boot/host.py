#!/usr/bin/env python3
"""tests/boot/host.py - boots the guest, prints what it reports, plugs what it asks for.

    host.py IMAGE KERNEL INITRD LOGS [STEP ...]

The guest writes lines to its second serial port (guest/lib.sh): "ok NAME", "bad NAME: what was
seen", "note ...", "host: WORD" for a thing to be done here, which is answered "done", and "end".
QMP is the way to pull cards out. STEPs (all, in the guest's order) travel on the kernel's command
line. Exit status 0 if every step passed and the guest came to its end.

With KVM where a kernel boots under it, else by software emulation: there guest time counts
instructions (one a nanosecond), so that a busy host makes the run longer and nothing else.
"""
import json
import os
import select
import socket
import subprocess
import sys
import time

PATIENCE_S = 1800  # without a word from the guest
PROBE_S = 20       # until a kernel says its first word under KVM
KVM = ["-accel", "kvm", "-cpu", "max", "-smp", "2"]
EMULATED = ["-accel", "tcg", "-icount", "shift=0,sleep=on", "-cpu", "max,la57=off", "-smp", "1"]
MACHINE = ["-machine", "pc", "-nodefaults", "-display", "none"]
CARDS = [
    {"driver": "usb-audio", "id": "usb", "bus": "xhci.0", "audiodev": "silence"},
    {"driver": "intel-hda", "id": "hda", "bus": "pci.0"},
    {"driver": "hda-duplex", "id": "codec", "bus": "hda.0", "audiodev": "silence"},
]


def option(card):
    return card["driver"] + "".join(f",{k}={v}" for k, v in card.items() if k != "driver")


def kvm_boots(kernel):
    """Whether this kernel says a word under KVM: a machine may have /dev/kvm and yet hang."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    process = subprocess.Popen(
        ["qemu-system-x86_64", *KVM, *MACHINE, "-m", "256", "-no-reboot", "-kernel", kernel,
         "-append", "console=ttyS0 panic=-1", "-serial", "stdio"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    said, deadline = b"", time.monotonic() + PROBE_S
    while b"Linux version" not in said and time.monotonic() < deadline:
        if select.select([process.stdout], [], [], 1)[0]:
            some = os.read(process.stdout.fileno(), 4096)
            if not some:
                break
            said += some
    process.kill()
    process.wait()
    return b"Linux version" in said


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
        for _ in range(1200):
            found = self.command("qom-list", path="/machine/peripheral").get("return", [])
            if all(item["name"] != name for item in found):
                return
            time.sleep(0.05)
        print(f"  host: {name} is still there", flush=True)

    def obey(self, word):
        """usb-del, usb-add, hda-del"""
        name, action = word.split("-")
        if action == "del":
            self.command("device_del", id=name)
            self.wait_gone(name)
            return
        answer = self.command("device_add", **next(c for c in CARDS if c["id"] == name))
        if "error" in answer:
            print("  host:", answer["error"]["desc"], flush=True)


def start(image, kernel, initrd, logs, steps):
    reports, monitor = listen(f"{logs}/reports"), listen(f"{logs}/monitor")
    kvm = kvm_boots(kernel)
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True,
                             check=True).stdout.split("\n")[0]
    print(f"boot: {version}, {'KVM' if kvm else 'software emulation'}", flush=True)
    process = subprocess.Popen(
        ["qemu-system-x86_64", *(KVM if kvm else EMULATED), *MACHINE, "-m", "1536",
         "-kernel", kernel, "-initrd", initrd,
         "-append", "root=/dev/sda rw console=ttyS0 quiet systemd.show_status=0 mitigations=off "
                    + " ".join(f"boot_check={s}" for s in steps),
         "-drive", f"file={image},if=ide,format=raw,snapshot=on",
         "-audiodev", "none,id=silence", "-device", "qemu-xhci,id=xhci",
         *(word for card in CARDS for word in ("-device", option(card))),
         "-netdev", "user,id=net,restrict=on", "-device", "e1000,netdev=net",
         "-serial", f"file:{logs}/console.log", "-chardev", f"socket,id=r,path={logs}/reports",
         "-serial", "chardev:r", "-chardev", f"socket,id=m,path={logs}/monitor",
         "-mon", "chardev=m,mode=control"])
    return process, reports.accept()[0], Monitor(monitor.accept()[0])


def follow(reports, monitor):
    """The guest's lines to its end: passed, failed, whether it came there."""
    began = time.monotonic()
    passed = failed = 0
    lines = reports.makefile("rw", errors="replace")
    for line in lines:
        kind, _, text = line.strip().partition(" ")
        passed += kind == "ok"
        failed += kind == "bad"
        if kind == "host:":
            monitor.obey(text)
            lines.write("done\n")
            lines.flush()
        elif kind == "end":
            return passed, failed, True
        elif kind in ("ok", "bad", "note"):
            print(f"  {time.monotonic() - began:6.0f} s  {kind:4} {text}", flush=True)
    return passed, failed, False


def main(image, kernel, initrd, logs, *steps):
    process, reports, monitor = start(image, kernel, initrd, logs, steps)
    reports.settimeout(PATIENCE_S)
    passed = failed = 0
    whole = False
    try:
        passed, failed, whole = follow(reports, monitor)
        process.wait(60 if whole else 1)
    except TimeoutError:
        print(f"boot: nothing was heard for {PATIENCE_S} s")
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.kill()
    if not whole:
        print(f"boot: the guest did not come to its end; its console is in {logs}/console.log")
        failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
