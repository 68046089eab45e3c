#!/usr/bin/env python3
"""tests/stop.py - parleyd is told to stop at random instants of a conversation.

    tests/stop.py BUILD [TIMES] [SEED] [JOBS]     a build folder with parleyd; 4 times, one at a time

A recorded question is asked through wav: devices in real time. After each stop: exit status 0 within
2 s, and no step above 0.05 of full scale where the sound ends. Prints the slowest stop and the
largest step at an end; exit status 1 when one is beyond its bar.
"""
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

STOP_S = 2.0
STEP = 0.05
SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
CONF = """
[model]
path = {source}/models/parley-mini
[audio]
capture = wav:{source}/tests/replay/voices/count-twenty.flac
playback = wav:{dir}/out.wav
realtime = no
vad = {source}/models/vad/silero.bin
[control]
socket = {dir}/socket
group =
[service]
state = {dir}/state
"""


def samples(path):
    """The sound of a WAV file of 16-bit samples, whatever its header says of its length."""
    with open(path, "rb") as f:
        data = f.read()
    at = data.find(b"data") + 8
    n = (len(data) - at) // 2
    return struct.unpack(f"<{n}h", data[at:at + 2 * n])


def step_at_end(pcm):
    """The largest step from the last sample that sounds to silence. Within speech steps are as large
    as speech makes them; a cut shows as a loud sample before the end."""
    last = next((i for i in range(len(pcm) - 1, -1, -1) if pcm[i] != 0), None)
    if last is None:
        return 0.0
    after = pcm[last + 1] if last + 1 < len(pcm) else 0
    return abs(pcm[last] - after) / 32768


def once(program, delay):
    with tempfile.TemporaryDirectory() as folder:
        conf = os.path.join(folder, "conf")
        os.mkdir(os.path.join(folder, "state"))
        with open(conf, "w", encoding="utf-8") as f:
            f.write(CONF.format(source=SOURCE, dir=folder))
        process = subprocess.Popen([program, "--config", conf], stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if "ready after" in line:
                break
        time.sleep(delay)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait()
        took = time.monotonic() - began
        process.stderr.close()
        out = os.path.join(folder, "out.wav")
        pcm = samples(out) if os.path.exists(out) else ()
        return code, took, step_at_end(pcm), any(abs(s) > 1000 for s in pcm)


def main(build, times=4, seed=1, jobs=1):
    rng = random.Random(int(seed))
    slowest = largest = 0.0
    wrong = loud = 0
    delays = [rng.uniform(0, 9) for _ in range(int(times))]
    with ThreadPoolExecutor(int(jobs)) as pool:
        stops = pool.map(lambda delay: once(os.path.join(build, "parleyd"), delay), delays)
        for delay, (code, took, step, sounded) in zip(delays, stops):
            slowest, largest = max(slowest, took), max(largest, step)
            loud += sounded
            if code != 0 or took > STOP_S or step > STEP:
                wrong += 1
                print(f"stopped after {delay:.3f} s: exit status {code}, {took:.2f} s, step "
                      f"{step:.3f}", flush=True)
    print(f"{times} stops, {loud} with sound: the slowest took {slowest:.2f} s, the largest step at an "
          f"end was {largest:.4f}, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
