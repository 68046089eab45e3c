#!/usr/bin/env python3
"""tools/vad_eval.py - voice activity on labelled recordings, beside the silero-vad package.

    tools/vad_eval.py --data DIR [--track build/vad_track] [--weights models/vad/silero.bin]
                      [--set "on=0.5 hang=200"]...

DIR holds NAME.wav (mono, 16 kHz) and NAME.scv: the name, then triples of start s, end s and 1 for
speech, comma-separated. Prints

  roc      area under the ROC over frames of 10 ms; a frame has the probability of the chunk of 32
           ms that its middle lies in ("live": of the newest chunk known when the frame ends)
  delay    of a start: from the labelled onset to the sample where it was known
  onset    where the start was put, and end where the end was put, less the label
  bridged  labelled pauses that the hang was longer than, so that nothing started anew after them
  false    starts known where no speech is labelled (100 ms around it are allowed)

and this for each --set of settings of vad_track. Needs numpy; the package's column needs
silero-vad and soundfile and says skip: without them. Exit status 77 when DIR is not there.
"""
import argparse
import glob
import os
import subprocess
import sys

try:
    import numpy as np
except ImportError:
    print("skip: numpy is not installed")
    sys.exit(77)

RATE, CHUNK, FRAME = 16000, 512, 160


def labels(path):
    """[(begin, end)] of speech in samples"""
    with open(path, encoding="utf-8") as f:
        cells = f.read().strip().split(",")[1:]
    spans = [(float(a), float(b)) for a, b, s in zip(cells[::3], cells[1::3], cells[2::3])
             if int(s)]
    return [(round(a * RATE), round(b * RATE)) for a, b in spans]


def track(args, settings, paths):
    """{path: (samples, probabilities, [(kind, from, at, known)])} from vad_track"""
    command = [args.track, args.weights] + settings.split() + paths
    result, current = {}, None
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    for line in done.stdout.split("\n"):
        word = line.split(" ")
        if word[0] == "file":
            current = result[word[1]] = [int(word[2]), [], []]
        elif word[0] == "chunk":
            current[1].append(float(word[2]))
        elif word[0] in ("start", "end"):
            current[2].append((word[0], *map(int, word[1:])))
    return result


def package(paths):
    """{path: probabilities}, or None"""
    try:
        import soundfile
        import torch
        from silero_vad import load_silero_vad
    except ImportError as why:
        print(f"skip: the package's column: {why}")
        return None
    torch.set_num_threads(1)
    model, result = load_silero_vad(), {}
    for path in paths:
        model.reset_states()
        pcm = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        with torch.no_grad():
            result[path] = [float(model(pcm[i:i + CHUNK], RATE))
                            for i in range(0, len(pcm) - CHUNK + 1, CHUNK)]
    return result


def area(truth, score):
    """Area under the ROC: the share of (speech, silence) pairs in the right order."""
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    ones = truth.sum()
    return (rank[truth].sum() - ones * (ones + 1) / 2) / (ones * (len(truth) - ones))


def roc(samples, spans, p, live):
    """Over all files; `p` is {path: probabilities}."""
    truth, score = [], []
    for path in samples:
        middle = np.arange(samples[path] // FRAME) * FRAME + FRAME // 2
        mark = np.zeros(len(middle), bool)
        for a, b in spans[path]:
            mark |= (middle >= a) & (middle < b)
        index = (middle + FRAME // 2) // CHUNK - 1 if live else middle // CHUNK
        track_p = np.concatenate([[0.0], p[path]])
        truth.append(mark)
        score.append(track_p[np.clip(index, -1, len(p[path]) - 1) + 1])
    return area(np.concatenate(truth), np.concatenate(score))


def starts(spans, events):
    """Delays, onset errors, lost beginnings, bridged, missed of one file. Speech that is there when
    the recording begins has no onset."""
    delay, error, lost, bridged, missed = [], [], [], 0, 0
    begun = [e for e in events if e[0] == "start"]
    ended = [e[3] for e in events if e[0] == "end"] + [1 << 60]
    for a, b in spans:
        if a == 0:
            continue
        found = [e for e in begun if a - RATE // 10 <= e[3] <= b]
        if any(e[3] < a - RATE // 10 and end > a for e, end in zip(begun, ended)):
            bridged += 1
        elif found:
            delay.append(found[0][3] - a)
            error.append(found[0][2] - a)
            lost.append(max(0, found[0][1] - a))
        else:
            missed += 1
    return delay, error, lost, bridged, missed


def false_starts(spans, events):
    near = RATE // 10
    return sum(e[0] == "start" and not any(a - near <= e[3] <= b + near for a, b in spans)
               for e in events)


def ends(spans, events):
    """Where ends were put, against the nearest labelled end within half a second."""
    put = []
    for e in events:
        error = [e[2] - b for _, b in spans]
        if e[0] == "end" and error and min(map(abs, error)) < RATE // 2:
            put.append(min(error, key=abs))
    return put


def spread(values):
    if not values:
        return "none"
    return "p10 %4.0f median %4.0f p90 %4.0f ms" % tuple(
        np.percentile(values, [10, 50, 90]) * 1000 / RATE)


def report(settings, spans, tracks):
    delay, error, lost, end, bridged, missed, false, onsets = [], [], [], [], 0, 0, 0, 0
    for path, (_, _, events) in tracks.items():
        d, o, lo, br, mi = starts(spans[path], events)
        delay, error, lost = delay + d, error + o, lost + lo
        bridged, missed, onsets = bridged + br, missed + mi, onsets + len(d) + br + mi
        false += false_starts(spans[path], events)
        end += ends(spans[path], events)
    print(f"\nsettings: {settings or 'as they come'}")
    print(f"  onsets  {onsets}, bridged {bridged}, missed {missed}, false starts {false}, "
          f"begun after the label even with pre-roll {sum(x > 0 for x in lost)}")
    for name, values in [("delay", delay), ("onset", error), ("end", end)]:
        print(f"  {name:6}  {spread(values)}, {len(values)} of them")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--track", default="build/vad_track")
    parser.add_argument("--weights", default="models/vad/silero.bin")
    parser.add_argument("--set", action="append", dest="sets")
    args = parser.parse_args()
    paths = sorted(p for p in glob.glob(os.path.join(args.data, "*.wav"))
                   if os.path.exists(p[:-4] + ".scv"))
    if not paths:
        print(f"skip: no labelled recordings in {args.data}")
        return 77
    spans = {path: labels(path[:-4] + ".scv") for path in paths}
    sets = args.sets or [""]
    ours = track(args, sets[0], paths)
    samples = {path: ours[path][0] for path in paths}
    columns = [("parley", {path: ours[path][1] for path in paths})]
    theirs = package(paths)
    if theirs is not None:
        columns.append(("package", theirs))
        worst = max(np.abs(np.subtract(theirs[path], columns[0][1][path])).max() for path in paths)
        print(f"largest difference of a probability: {worst:.1e}")
    seconds = sum(samples.values()) / RATE
    print(f"{len(paths)} recordings, {seconds:.1f} s, "
          f"{seconds - sum(b - a for s in spans.values() for a, b in s) / RATE:.1f} s of no speech")
    for name, p in columns:
        print(f"roc     {name:8} {roc(samples, spans, p, False):.4f}   "
              f"live {roc(samples, spans, p, True):.4f}")
    for settings in sets:
        report(settings, spans, track(args, settings, paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
