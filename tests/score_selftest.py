#!/usr/bin/env python3
"""tests/score_selftest.py - tools/score.py on made-up conversations whose figures are known. Run
with no arguments."""
import contextlib
import io
import json
import os
import struct
import sys
import tempfile
import unittest
import wave

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
sys.dont_write_bytecode = True
import score  # noqa: E402


def sound(path, spans, seconds, rate=16000, width=2, channels=1):
    """A square wave of half scale in the spans (in ms), hiss at -60 dBFS elsewhere."""
    full = 1 << (8 * width - 1)
    data = bytearray()
    for i in range(int(seconds * rate)):
        ms = i * 1000 / rate
        loud = any(a <= ms < b for a, b in spans)
        value = (full // 2 if loud else full // 1000) * (1 if i & 1 else -1)
        data += struct.pack("<i", value << (32 - 8 * width))[4 - width:] * channels
    with wave.open(path, "wb") as f:
        f.setnchannels(channels)
        f.setsampwidth(width)
        f.setframerate(rate)
        f.writeframes(bytes(data))


def lab(*spans, **more):
    return [{"start": a / 1000, "end": b / 1000, **more} for a, b in spans]


class Score(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.user = os.path.join(self.folder.name, "user.wav")
        self.speaker = os.path.join(self.folder.name, "speaker.wav")

    def tearDown(self):
        self.folder.cleanup()

    def score(self, user, speaker, labels, events=None, seconds=6, **form):
        sound(self.user, user, seconds, **form)
        sound(self.speaker, speaker, seconds, **form)
        return score.score(self.user, self.speaker, labels, events, -50)

    def test_both_in_one_file(self):
        rate = 16000
        both = os.path.join(self.folder.name, "both.wav")
        sound(self.user, [(500, 1000)], 3)
        sound(self.speaker, [(1640, 2500)], 3)
        with wave.open(self.user, "rb") as u, wave.open(self.speaker, "rb") as s, \
                wave.open(both, "wb") as f:
            f.setnchannels(2)
            f.setsampwidth(2)
            f.setframerate(rate)
            left, right = u.readframes(3 * rate), s.readframes(3 * rate)
            f.writeframes(b"".join(left[i:i + 2] + right[i:i + 2] for i in range(0, len(left), 2)))
        f = score.score(both, both, {"turns": lab((500, 1000))}, None, -50)
        self.assertEqual(f["endpoint"]["p50_ms"], 640)
        self.assertEqual(f["silent_turns"], 0)
        with self.assertRaisesRegex(score.BadInput, "1 channels"):
            score.score(self.user, self.user, {}, None, -50)

    def test_endpoint(self):
        turns = lab((500, 1000), (3000, 3500), (5000, 5500))
        f = self.score([(500, 1000), (3000, 3500)], [(1640, 2500), (4300, 4800)],
                       {"turns": turns})
        e = f["endpoint"]
        self.assertEqual((e["answered"], e["unanswered"]), (2, 1))
        self.assertEqual((e["p50_ms"], e["p90_ms"]), (640, 800))
        self.assertEqual(e["answered_within"][600], 0)
        self.assertEqual(e["answered_within"][700], 0.3333)
        self.assertEqual(f["silent_turns"], 1)

    def test_forms(self):
        for width, rate, channels in ((2, 48000, 2), (3, 16000, 1), (4, 24000, 1), (2, 44100, 1)):
            f = self.score([(100, 500)], [(1100, 1500)], {"turns": lab((100, 500))}, seconds=2.5,
                           rate=rate, width=width, channels=channels)
            self.assertEqual(f["seconds"], 2.5)
            self.assertAlmostEqual(f["endpoint"]["p50_ms"], 600, delta=1)

    def test_cut_in(self):
        labels = {"pauses": lab((1000, 1600), (2000, 2400), (4000, 5000))}
        # Speaks in the first; sounds in the second already when it begins; is quiet in the third.
        c = self.score([], [(1500, 1700), (1800, 2200)], labels)["cut_in"]
        self.assertEqual((c["cut_ins"], c["pauses"], c["p50_pause_ms"]), (1, 3, 600))

    def test_stop(self):
        labels = {"barge_ins": lab((1000, 2000), (3000, 3800), (5000, 5500))}
        # Stops after 120 ms; goes on after a hold, to the end; there was nothing to stop.
        s = self.score([], [(200, 1120), (2500, 3100), (3400, 4500)], labels)["stop"]
        self.assertEqual((s["p50_ms"], s["missed"], s["into_silence"]), (120, 1, 1))

    def test_false(self):
        def step(ms, event, was, state, *actions):
            return {"at": ms * 16, "ms": ms, "event": event, "was": was, "state": state,
                    "actions": list(actions)}

        events = [step(1000, "speech_onset", "speaking", "held", "hold"),
                  step(1350, "speech_end", "held", "speaking", "resume"),
                  step(2000, "speech_onset", "speaking", "held", "hold"),
                  step(2450, "tick", "held", "listening", "drop", "truncate", "hear"),
                  step(4900, "speech_onset", "speaking", "held", "hold"),
                  step(5400, "tick", "held", "listening", "drop", "roll_back"),
                  step(5800, "stop", "speaking", "idle", "drop", "truncate")]
        labels = {"sounds": lab((950, 1300), (3300, 3400), kind="cough")
                  + lab((1950, 2400), kind="backchannel")}
        f = self.score([], [(0, 3600)], labels, events)["false"]
        self.assertEqual(f["own_sound_h"], 0.001)
        self.assertEqual(f["kinds"]["cough"],
                         {"sounds": 2, "dropped": 0, "held": 1, "per_hour": 0,
                          "resume_p50_ms": 350, "resume_p95_ms": 350})
        self.assertEqual(f["kinds"]["backchannel"]["dropped"], 1)
        self.assertEqual(f["kinds"]["backchannel"]["per_hour"], 1000)
        self.assertEqual(f["own_echo"]["dropped"], 1)

    def test_quantile(self):
        self.assertIsNone(score.quantile([], 0.5))
        self.assertEqual(score.quantile([3], 0.9), 3)
        self.assertEqual(score.quantile(list(range(1, 101)), 0.95), 95)
        self.assertEqual(score.quantile([1, 2, 3], 0.5), 2)

    def run_main(self, *args):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = score.main(list(args))
        return status, out.getvalue(), err.getvalue()

    def test_program(self):
        labels = os.path.join(self.folder.name, "labels.json")
        events = os.path.join(self.folder.name, "events.jsonl")
        sound(self.user, [(100, 500)], 2)
        sound(self.speaker, [(1100, 1500)], 2)
        with open(labels, "w", encoding="utf-8") as f:
            json.dump({"turns": lab((100, 500))}, f)
        with open(events, "w", encoding="utf-8") as f:
            f.write('{"at":0,"ms":0.0,"event":"start"}\n')
        args = ["--user", self.user, "--speaker", self.speaker, "--labels", labels]
        status, out, _ = self.run_main(*args, "--events", events)
        self.assertEqual(status, 0)
        self.assertIn("p50 600 ms", out)
        status, out, _ = self.run_main(*args, "--json")
        self.assertEqual(json.loads(out)["endpoint"]["p50_ms"], 600)

    def test_bad_input(self):
        sound(self.user, [], 1)
        sound(self.speaker, [], 3)
        for labels, word in (({}, "same time"),):
            with self.assertRaisesRegex(score.BadInput, word):
                score.score(self.user, self.speaker, labels, None, -50)
        sound(self.speaker, [], 1)
        for labels, word in (({"turns": [{"start": 1}]}, "needs numbers"),
                             ({"turns": lab((500, 400))}, "expected to lie"),
                             ({"sounds": lab((500, 90000))}, "expected to lie")):
            with self.assertRaisesRegex(score.BadInput, word):
                score.score(self.user, self.speaker, labels, None, -50)
        with open(self.user, "wb") as f:
            f.write(b"RIFF")
        labels = os.path.join(self.folder.name, "labels.json")
        args = ["--user", self.user, "--speaker", self.speaker, "--labels", labels]
        self.assertEqual(self.run_main(*args)[0], 2)  # no labels
        with open(labels, "w", encoding="utf-8") as f:
            f.write("{}")
        status, _, err = self.run_main(*args)
        self.assertEqual(status, 2)
        self.assertIn("user.wav", err)
        for text in ("nonsense\n", '{"ms": 1}\n', "1\n"):
            with open(labels, "w", encoding="utf-8") as f:
                f.write(text)
            with self.assertRaises(score.BadInput):
                score.read_events(labels)


if __name__ == "__main__":
    unittest.main()
