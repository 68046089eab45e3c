#!/usr/bin/env python3
"""tests/faults/calls.py - parleyd while system calls fail.

    tests/faults/calls.py BUILD [TIMES] [SEED] [JOBS]      a build folder with parleyd; 12 1 2

Each time parleyd starts, hears a recorded question, is interrupted by a second one, gets commands
through its control socket, writes its history and is told to stop. Meanwhile strace makes some call
of one kind fail, the n-th of a thread; or libparley_faults.so makes the n-th of the process move
only half of what it was asked for (the error "short"), or the n-th allocation fail (the call "malloc"). A
fault is lost when parleyd is killed by it, when it takes more than 5 s
longer than it may, when a file of its state is neither as before nor as it should be, or
when something was not done and nobody was told. Prints a line for each run with a lost fault, then
one with the sum. Exit status 77: there is no strace.
"""
import array
import collections
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import wave
from concurrent.futures import ThreadPoolExecutor

SOURCE = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
HANG_S = 5.0
START_S = float(os.environ.get("FAULTS_START_S", "20"))  # a busy machine, strace
QUESTION = "How much is two plus two?"
CONF = """
[model]
path = {source}/models/parley-mini
context = 2048
threads = 1
device = cpu
[audio]
capture = wav:{dir}/in.wav
playback = wav:{dir}/out.wav
realtime = no
vad = {source}/models/vad/silero.bin
[history]
keep = file
[control]
socket = {dir}/socket
group =
[service]
state = {dir}/state
"""
# Call, errors that the manual page knows, about how many of them a thread makes, and how many the
# dynamic loader has made before main. Not brk (a failing one returns the old break, which strace
# cannot say), futex and rt_sigprocmask (with good arguments they have no failure that the C library
# would know).
CALLS = [
    ("openat", "EMFILE ENFILE EACCES EIO ENOMEM ENOENT EINTR", 40, 30),
    ("read", "EIO EINTR EAGAIN EISDIR", 40, 28),
    ("pread64", "EIO EINTR", 6, 2),
    ("write", "EIO ENOSPC EINTR EAGAIN EDQUOT", 60, 0),
    ("fsync", "EIO ENOSPC EINTR EROFS", 16, 0),
    ("renameat", "EIO ENOSPC EACCES EROFS", 8, 0),
    ("unlinkat", "EIO EACCES EROFS", 8, 0),
    ("fchmod", "EIO EPERM EROFS", 8, 0),
    ("close", "EIO EINTR ENOSPC", 50, 34),
    ("newfstatat", "EIO EACCES ENOMEM", 20, 34),
    ("lseek", "EINVAL", 12, 0),
    ("mmap", "ENOMEM EAGAIN", 30, 140),
    ("munmap", "ENOMEM", 10, 4),
    ("mprotect", "ENOMEM", 10, 40),
    ("madvise", "ENOMEM EAGAIN", 20, 0),
    ("clone3", "EAGAIN ENOMEM", 6, 0),
    ("socket", "EMFILE ENFILE ENOMEM EACCES", 3, 0),
    ("bind", "EADDRINUSE EACCES ENOSPC EROFS", 1, 0),
    ("connect", "EIO EACCES", 1, 0),
    ("listen", "EADDRINUSE", 1, 0),
    ("accept4", "EMFILE ENFILE ENOMEM EINTR ECONNABORTED EAGAIN", 10, 0),
    ("recvfrom", "EINTR EAGAIN ECONNRESET ENOMEM", 20, 0),
    ("sendto", "EINTR EAGAIN ECONNRESET EPIPE ENOMEM", 20, 0),
    ("getsockopt", "ENOMEM EINVAL", 10, 0),
    ("epoll_create1", "EMFILE ENFILE ENOMEM", 1, 0),
    ("epoll_ctl", "ENOMEM ENOSPC", 20, 0),
    ("epoll_wait", "EINTR", 60, 0),
    ("timerfd_create", "EMFILE ENOMEM", 1, 0),
    ("timerfd_settime", "EINVAL ECANCELED", 20, 0),
    ("signalfd4", "EMFILE ENFILE ENOMEM", 5, 0),
    ("eventfd2", "EMFILE ENFILE ENOMEM", 2, 0),
    ("ioctl", "ENOTTY EIO EINTR", 4, 0),
    ("clock_nanosleep", "EINTR", 300, 0),
    ("prlimit64", "EPERM", 2, 1),
    ("getrandom", "EINTR EAGAIN", 2, 1),
    ("sched_getaffinity", "EINVAL", 1, 0),
    ("prctl", "EINVAL", 4, 0),
]
# Calls that may do less than they were asked for, and how many a process makes.
SHORT = {"read": 60, "write": 200, "recv": 8, "send": 8}
# Allocations before and after the model is loaded (what is between: allocations.py), and how many of
# the different faults they are.
ALLOCATIONS = ((1, 200), (35600, 37400))
MALLOCS = 20
EXCEPT = "libsoxr:libwebrtc:libstdc++"  # they do not check what malloc gives them
OLD = {"turns": [{"at": 1, "who": "person", "text": "before"}]}


def recording(build, path):
    """What the person of turn.json says, by way of a replay; then silence for a minute."""
    both = path + ".both.wav"
    subprocess.run([os.path.join(build, "parley"), "replay",
                    os.path.join(SOURCE, "tests/faults/turn.json"), "--model",
                    os.path.join(SOURCE, "models/parley-mini"), "--vad",
                    os.path.join(SOURCE, "models/vad/silero.bin"), "--threads", "1", "--quiet",
                    "--out", both], stdout=subprocess.DEVNULL, check=False)
    with wave.open(both, "rb") as f, wave.open(path, "wb") as out:
        samples = array.array("h", f.readframes(f.getnframes()))[::2]
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(f.getframerate())
        out.writeframes(samples.tobytes() + bytes(2 * 60 * f.getframerate()))


class Lost(Exception):
    pass


class Run:
    """One parleyd under one fault."""

    def __init__(self, build, sound, fault):
        self.program = os.path.join(build, "parleyd")
        self.library = os.path.join(build, "tests/faults/libparley_faults.so")
        self.sound, self.fault = sound, fault
        self.preloaded = fault[0] == "malloc" or fault[1] == "short"
        self.said = []
        self.refused = []
        self.ready = threading.Event()

    def start(self, folder):
        self.folder = folder
        conf = os.path.join(folder, "conf")
        os.mkdir(os.path.join(folder, "state"), 0o700)
        os.symlink(self.sound, os.path.join(folder, "in.wav"))
        with open(conf, "w", encoding="utf-8") as f:
            f.write(CONF.format(source=SOURCE, dir=folder))
        with open(os.path.join(folder, "state", "history.json"), "w", encoding="utf-8") as f:
            json.dump(OLD, f)
        name, error, first = self.fault
        env = dict(os.environ)
        if self.preloaded:
            what = f"nth={first}" if name == "malloc" else f"call={name}:{first}:short"
            env.update(PARLEY_FAULTS=what, LD_PRELOAD=self.library, PARLEY_FAULTS_EXCEPT=EXCEPT,
                       PARLEY_FAULTS_REPORT=os.path.join(folder, "report"))
            trace = []
        else:
            trace = self.strace()
        self.process = subprocess.Popen(trace + [self.program, "--config", conf], env=env,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        text=True)
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def strace(self):
        name, error, first = self.fault
        return ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", os.path.join(self.folder, "trace"),
                "-e", f"trace={name}", "-e", f"inject={name}:error={error}:when={first}"]

    def listen(self):
        for line in self.process.stderr:
            self.said.append(line.strip())
            if "ready after" in line:
                self.ready.set()

    def ended(self, within):
        try:
            self.process.wait(within)
            return True
        except subprocess.TimeoutExpired:
            return False

    def ctl(self, request):
        """The answer, or None where parleyd has closed the connection or is gone."""
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(HANG_S)
                s.connect(os.path.join(self.folder, "socket"))
                s.sendall(json.dumps(request).encode() + b"\n")
                text = b""
                while not text.endswith(b"\n"):
                    more = s.recv(65536)
                    if not more:
                        return None
                    text += more
        except TimeoutError as late:
            raise Lost(f"no answer to {request['cmd']}") from late
        except OSError:
            return None
        answer = json.loads(text)
        if not answer.get("ok"):
            self.refused.append(answer.get("error", "?"))
            return None
        return answer

    def talk(self):
        """What a person and an owner do. The recording asks and interrupts meanwhile."""
        time.sleep(2.6)
        for request in ({"cmd": "status"}, {"cmd": "volume", "number": 55}, {"cmd": "metrics"},
                        {"cmd": "mute"}, {"cmd": "unmute"}, {"cmd": "ask", "text": QUESTION}):
            self.ctl(request)
        time.sleep(1.2)
        self.ctl({"cmd": "stop"})
        time.sleep(0.2)
        self.turns = (self.ctl({"cmd": "history"}) or {}).get("turns")
        self.status = self.ctl({"cmd": "status"})

    def ask_ready(self):
        """The line that says so may be the write that failed."""
        if (self.ctl({"cmd": "status"}) or {}).get("state") != "ready":
            raise Lost("does not become ready")
        self.ready.set()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        if not self.ended(HANG_S):
            self.process.kill()
            raise Lost("hangs when it is told to stop")
        self.listener.join(HANG_S)

    def judge_files(self):
        state = os.path.join(self.folder, "state")
        values = {}
        for name in ("history.json", "starts.json"):
            path = os.path.join(state, name)
            if os.path.exists(path):
                try:
                    with open(path, encoding="utf-8") as f:
                        values[name] = json.load(f)
                except ValueError as bad:
                    raise Lost(f"{name} is corrupt: {bad}") from bad
        turns = values.get("history.json", {}).get("turns")
        if turns is None:
            raise Lost("the history is gone")
        if turns[:1] != OLD["turns"] and not self.told("history"):
            raise Lost("the old history is gone without a word")
        known = self.turns or []
        if turns[:len(known)] != known and not self.told("history"):
            raise Lost(f"the history on disk has {len(turns)} turns, not {len(known)}, "
                       "without a word")
        volume = values.get("starts.json", {}).get("volume")
        if self.status is not None and self.status["volume"] == 55 and volume != 55 and not (
                self.told("starts.json") or self.refused):
            raise Lost("the volume is not kept, without a word")

    def told(self, about):
        return any(about in line for line in self.said + self.refused)

    def injected(self):
        path = os.path.join(self.folder, "report" if self.preloaded else "trace")
        try:
            with open(path, encoding="utf-8", errors="replace") as f:
                text = f.read()
        except OSError:
            return 0
        if not self.preloaded:
            return text.count("(INJECTED)")
        n = int((text.split() or ["0"])[0])
        return int(n >= self.fault[2]) if self.fault[0] == "malloc" else n

    def judge_memory(self):
        """What parleyd, or jansson or sd-event for it, asked for and did not give back."""
        path = os.path.join(self.folder, "report")
        if self.fault[0] != "malloc" or not os.path.exists(path):
            return
        with open(path, encoding="utf-8", errors="replace") as f:
            askers = f.read().partition(" | ")[0].split(",")[1:]
        ours = [a for a in askers if a.startswith(("parleyd", "libjansson", "libsystemd"))]
        if ours:
            raise Lost(f"leaks {ours}")

    def judge(self):
        code = self.process.returncode
        if code < 0:
            raise Lost(f"ended by signal {-code}")
        spoken = [line for line in self.said if not line.startswith("<6>")]
        if code != 0 and not spoken:
            raise Lost(f"exit status {code} without a word")
        self.judge_files()
        self.judge_memory()

    def __call__(self):
        with tempfile.TemporaryDirectory(prefix="parley-faults-") as folder:
            self.turns = self.status = None
            lost, code = None, None
            try:
                self.start(folder)
                began = time.monotonic()
                while not self.ready.wait(0.05) and self.process.poll() is None:
                    if time.monotonic() - began > START_S:
                        self.ask_ready()
                if self.ready.is_set():
                    self.talk()
                self.stop()
                self.judge()
            except Lost as what:
                lost = str(what)
            finally:
                if self.process.poll() is None:
                    self.process.kill()
                    self.process.wait()
            code = self.process.returncode
            time.sleep(0.05)  # strace writes its last lines after its child has ended
            return lost, self.injected(), code


def faults(times, rng):
    """`times` different ones, every call and error among them if there are enough."""
    every = [(name, error) for name, errors, _, _ in CALLS for error in errors.split()]
    every += [(name, "short") for name in SHORT] + [("malloc", "ENOMEM")] * MALLOCS
    about = {name: (usual, before) for name, _, usual, before in CALLS}
    rng.shuffle(every)
    for i in range(times):
        name, error = every[i % len(every)]
        if name == "malloc":
            yield name, error, rng.randint(*rng.choice(ALLOCATIONS))
            continue
        usual, before = (SHORT[name], 0) if error == "short" else about[name]
        yield name, error, before + rng.randint(1, usual)


def main(build, times=12, seed=1, jobs=2):
    if subprocess.run("strace -qq -o /dev/null true", shell=True, check=False,
                      stderr=subprocess.DEVNULL).returncode != 0:
        print("skip: strace is not installed, or may not trace")
        return 77
    if not os.path.exists(os.path.join(SOURCE, "models/parley-mini",
                                       "model-00001-of-00002.safetensors")):
        print("skip: the weights of models/parley-mini are not here")
        return 77
    rng = random.Random(int(seed))
    count = collections.Counter()
    codes = collections.Counter()
    sentences, example = collections.Counter(), {}
    with tempfile.TemporaryDirectory(prefix="parley-faults-") as folder:
        sound = os.path.join(folder, "in.wav")
        recording(build, sound)
        runs = [Run(build, sound, fault) for fault in faults(int(times), rng)]
        with ThreadPoolExecutor(int(jobs)) as pool:
            for run, (lost, injected, code) in zip(runs, pool.map(lambda r: r(), runs)):
                count["runs"] += 1
                count["faults"] += injected
                count["without"] += injected == 0
                codes[code] += 1
                for line in run.said:
                    if not line.startswith("<6>") and "memory is not locked" not in line:
                        line = line.replace(run.folder, "")
                        sentences[line] += 1
                        example.setdefault(line, run.fault)
                if lost is not None:
                    count["lost"] += 1
                    print(f"lost: {':'.join(map(str, run.fault))}: {lost}; said: "
                          f"{' / '.join(run.said)}", flush=True)
    if os.environ.get("FAULTS_SENTENCES"):
        for line, n in sentences.most_common():
            print(f"{n:5} {line}   {':'.join(map(str, example[line]))}")
    print(f"{count['runs']} runs, {count['faults']} faults ({count['without']} runs never came to "
          f"theirs), exit statuses {dict(sorted(codes.items(), key=str))}, {count['lost']} lost")
    return 1 if count["lost"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
