#!/usr/bin/env python3
"""tools/score.py - how well a conversation went, from two time-aligned recordings.

    tools/score.py --user user.wav --speaker speaker.wav --labels labels.json
                   [--events events.jsonl] [--floor -50] [--json]
    tools/score.py --both both.wav ...

The recordings start together: what the person said, and what the loudspeaker played; or both are
the left and the right channel of one file, as `parley replay --out` writes it. Labels are
times in seconds, every list may be missing:

    {"turns":     [{"start": 1.0, "end": 3.2}],                  the person's turns, whole
     "pauses":    [{"start": 1.8, "end": 2.3}],                  silences inside of turns
     "barge_ins": [{"start": 9.0, "end": 10.5}],                 speech meant to interrupt
     "sounds":    [{"start": 7.0, "end": 7.3, "kind": "cough"}]} any other: backchannel, cough, tv

Figures, at a resolution of 1 ms:
  endpoint   from the end of a turn to the first sound above the floor that follows, before the next
             turn begins; with the share of turns answered within given times (the curve)
  cut-in     pauses in which the loudspeaker begins to sound
  stop       from the start of a barge-in to the last sound above the floor, if there is silence
             before the person is done; a barge-in into silence does not count
  false      replies that were dropped (event log) over a labelled sound, by kind, and with no label
             near by ("own echo"), per hour of own sound; sounds that only held it: time to resume

Exit status 0, or 2 when an input cannot be used. Only the Python standard library is used.
"""
import argparse
import array
import json
import sys
import wave

CURVE_MS = (200, 300, 400, 500, 600, 700, 800, 1000, 1500, 2000)
NEAR_S = 1.0       # an event so soon after a label belongs to it
ONSET_GAP_S = 0.1  # sound after less silence than this is no new beginning


class BadInput(Exception):
    pass


def samples(frames, width):
    """Little-endian PCM as an array of integers, and the value of full scale."""
    if width == 3:
        wide = bytearray(len(frames) // 3 * 4)
        for i in range(3):
            wide[i + 1::4] = frames[i::3]
        frames, width = bytes(wide), 4
    code = {2: "h", 4: "i"}.get(width)
    if code is None:
        raise BadInput(f"{8 * width}-bit sound; expected 16, 24 or 32 bits")
    values = array.array(code)
    values.frombytes(frames)
    if sys.byteorder == "big":
        values.byteswap()
    return values, 1 << (8 * width - 1)


def loud_ms(path, floor_db, channel=None):
    """One byte a millisecond: 1 where any sample (of one channel) is above the floor."""
    loud = bytearray()
    try:
        with wave.open(path, "rb") as f:
            rate, channels, width = f.getframerate(), f.getnchannels(), f.getsampwidth()
            total = f.getnframes()
            done = 0
            if channel is not None and channel >= channels:
                raise BadInput(f"{path}: {channels} channels; expected at least {channel + 1}")
            while done < total:  # a second at a time, so that each ms has whole frames
                frames = f.readframes(rate)
                if not frames:
                    break
                values, full = samples(frames, width)
                limit = full * 10 ** (floor_db / 20)
                count = len(values) // channels
                step = channels
                if channel is not None:
                    values, step = values[channel::channels], 1
                edges = [i * rate // 1000 * step for i in range(1001)]
                for i in range(1000):
                    piece = values[edges[i]:edges[i + 1]]
                    if edges[i] >= count * step:
                        break
                    loud.append(len(piece) > 0 and max(max(piece), -min(piece)) > limit)
                done += count
    except (OSError, EOFError, wave.Error) as e:
        raise BadInput(f"{path}: {e}") from e
    return loud


def spans(labels, key, last_ms):
    found = []
    for i, label in enumerate(labels.get(key, [])):
        try:
            start, end = 1000 * float(label["start"]), 1000 * float(label["end"])
        except (KeyError, TypeError, ValueError) as e:
            raise BadInput(f"labels: {key}[{i}] needs numbers start and end") from e
        if not 0 <= start < end <= last_ms + 1:
            raise BadInput(f"labels: {key}[{i}] is {start / 1000} to {end / 1000} s, expected to "
                           f"lie within the {last_ms / 1000} s of the recordings")
        found.append((round(start), round(end), label.get("kind", "other")))
    return sorted(found)


def read_labels(path):
    try:
        with open(path, encoding="utf-8") as f:
            labels = json.load(f)
    except (OSError, ValueError) as e:
        raise BadInput(f"{path}: {e}") from e
    if not isinstance(labels, dict):
        raise BadInput(f"{path}: expected an object")
    return labels


def read_events(path):
    events = []
    try:
        with open(path, encoding="utf-8") as f:
            for n, line in enumerate(f, 1):
                event = json.loads(line)
                if "ms" not in event or "event" not in event:
                    raise BadInput(f"{path}:{n}: expected ms and event")
                events.append(event)
    except (OSError, ValueError, TypeError) as e:
        raise BadInput(f"{path}: {e}") from e
    return events


def quantile(values, share):
    """The least value that `share` of them do not exceed."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000 * len(ordered)) // 1000) - 1)]


def first_loud(loud, start, end):
    at = loud.find(1, max(0, start), max(0, end))
    return None if at < 0 else at


def last_loud(loud, start, end):
    at = loud.rfind(1, max(0, start), max(0, end))
    return None if at < 0 else at


def answer_latencies(loud, turns):
    """For each turn the time to the first sound that follows, None without one."""
    for i, (_, end, _) in enumerate(turns):
        limit = turns[i + 1][0] if i + 1 < len(turns) else len(loud)
        at = first_loud(loud, end, limit)
        yield None if at is None else at - end


def endpoint(loud, turns):
    latencies = [ms for ms in answer_latencies(loud, turns) if ms is not None]
    answered = len(latencies)
    unanswered = len(turns) - answered
    curve = {ms: round(sum(x <= ms for x in latencies) / len(turns), 4) for ms in CURVE_MS} \
        if turns else {}
    return {"turns": len(turns), "answered": answered, "unanswered": unanswered,
            "p50_ms": quantile(latencies, 0.5), "p90_ms": quantile(latencies, 0.9),
            "answered_within": curve}


def is_cut_in(loud, start, end):
    """A reply that still sounds from before the pause is not a beginning."""
    at = first_loud(loud, start, end)
    return at is not None and first_loud(loud, at - int(1000 * ONSET_GAP_S), at) is None


def cut_in(loud, pauses):
    cuts = sum(is_cut_in(loud, start, end) for start, end, _ in pauses)
    return {"pauses": len(pauses), "cut_ins": cuts,
            "rate": round(cuts / len(pauses), 4) if pauses else None,
            "p50_pause_ms": quantile([end - start for start, end, _ in pauses], 0.5)}


def stop_latency(loud, start, end):
    """Time from the start of a barge-in to silence; "silent" before it, "missed" if it talks on."""
    gap = int(1000 * ONSET_GAP_S)
    if first_loud(loud, start - gap, start + 1) is None:
        return "silent"
    last = last_loud(loud, start, end)
    if last is not None and last >= end - gap:
        return "missed"
    return 0 if last is None else last + 1 - start


def stop(loud, barge_ins):
    found = [stop_latency(loud, start, end) for start, end, _ in barge_ins]
    latencies = [ms for ms in found if ms not in ("silent", "missed")]
    silent, missed = found.count("silent"), found.count("missed")
    return {"barge_ins": len(barge_ins), "into_silence": silent, "missed": missed,
            "p50_ms": quantile(latencies, 0.5), "p95_ms": quantile(latencies, 0.95)}


def near(span, ms):
    return span[0] <= ms <= span[1] + 1000 * NEAR_S


def dropped(event):
    """A reply that sounded was dropped because of something heard."""
    actions = event.get("actions", [])
    heard = event["event"] in ("tick", "speech_onset", "speech_end", "barge_in")
    return heard and "drop" in actions and event.get("was") in ("speaking", "held") \
        and ("truncate" in actions or "roll_back" in actions) and event.get("state") == "listening"


def resume_ms(events, span):
    """From a hold within the span to its end; None if there was none."""
    held = None
    for event in events:
        actions = event.get("actions", [])
        if held is None and "hold" in actions and near(span, event["ms"]):
            held = event["ms"]
        elif held is not None and event.get("was") == "held" and event.get("state") != "held":
            return event["ms"] - held if "resume" in actions else None
    return None


def false_barge_in(loud, events, labelled, sounds):
    hours = sum(loud) / 3.6e6
    drops = [e["ms"] for e in events if dropped(e)]
    kinds = {}
    for span in sounds:
        kind = kinds.setdefault(span[2], {"sounds": 0, "dropped": 0, "held": 0, "resume": []})
        kind["sounds"] += 1
        kind["dropped"] += any(near(span, ms) for ms in drops)
        back = resume_ms(events, span)
        if back is not None:
            kind["held"] += 1
            kind["resume"].append(back)
    for kind in kinds.values():
        back = kind.pop("resume")
        kind["per_hour"] = round(kind["dropped"] / hours, 2) if hours else None
        kind["resume_p50_ms"] = quantile(back, 0.5)
        kind["resume_p95_ms"] = quantile(back, 0.95)
    own = sum(not any(near(span, ms) for span in labelled + sounds) for ms in drops)
    return {"own_sound_h": round(hours, 4), "kinds": kinds,
            "own_echo": {"dropped": own, "per_hour": round(own / hours, 2) if hours else None}}


def score(user, speaker, labels, events, floor_db):
    both = user == speaker
    loud = loud_ms(speaker, floor_db, 1 if both else None)
    voice = loud_ms(user, floor_db, 0 if both else None)
    if abs(len(loud) - len(voice)) > 1000:
        raise BadInput(f"{user} has {len(voice) / 1000} s and {speaker} {len(loud) / 1000} s; "
                       "expected recordings of the same time")
    names = ("turns", "pauses", "barge_ins", "sounds")
    turns, pauses, barge_ins, sounds = (spans(labels, n, max(len(loud), len(voice)))
                                        for n in names)
    figures = {"seconds": len(loud) / 1000,
               "silent_turns": sum(first_loud(voice, a, b) is None for a, b, _ in turns),
               "endpoint": endpoint(loud, turns), "cut_in": cut_in(loud, pauses),
               "stop": stop(loud, barge_ins)}
    if events is not None:
        figures["false"] = false_barge_in(loud, events, turns + barge_ins, sounds)
    return figures


def say(figures):
    def n(value, unit=""):
        return "-" if value is None else f"{value:g}{unit}"

    e, c, s = figures["endpoint"], figures["cut_in"], figures["stop"]
    lines = [f"endpoint   p50 {n(e['p50_ms'], ' ms')}, p90 {n(e['p90_ms'], ' ms')}, "
             f"{e['answered']} of {e['turns']} turns answered"]
    if e["answered_within"]:
        lines.append("  curve    " + "  ".join(f"{ms} ms {100 * share:.0f} %"
                                               for ms, share in e["answered_within"].items()))
    lines.append(f"cut-in     {c['cut_ins']} of {c['pauses']} pauses ("
                 + ("-" if c["rate"] is None else f"{100 * c['rate']:.1f} %")
                 + f"), p50 pause {n(c['p50_pause_ms'], ' ms')}")
    lines.append(f"stop       p50 {n(s['p50_ms'], ' ms')}, p95 {n(s['p95_ms'], ' ms')}, "
                 f"{s['missed']} of {s['barge_ins']} missed, {s['into_silence']} into silence")
    if "false" not in figures:
        lines.append("false      - (needs the event log)")
    else:
        f = figures["false"]
        lines.append(f"false      own echo {f['own_echo']['dropped']} "
                     f"({n(f['own_echo']['per_hour'])} per hour of own sound)")
        for name, k in sorted(f["kinds"].items()):
            lines.append(f"  {name:<11} dropped {k['dropped']} of {k['sounds']} "
                         f"({n(k['per_hour'])} per hour), resumed {k['held']}, "
                         f"p50 {n(k['resume_p50_ms'], ' ms')}, p95 {n(k['resume_p95_ms'], ' ms')}")
    if figures["silent_turns"]:
        lines.append(f"note: {figures['silent_turns']} labelled turns have no sound in the user's "
                     "recording")
    return "\n".join(lines)


def main(args):
    parser = argparse.ArgumentParser(description="Scores a conversation from two recordings.")
    for name in ("user", "speaker", "both"):
        parser.add_argument("--" + name)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--events")
    parser.add_argument("--floor", type=float, default=-50.0, help="dBFS (default -50)")
    parser.add_argument("--json", action="store_true")
    o = parser.parse_args(args)
    user, speaker = (o.both, o.both) if o.both else (o.user, o.speaker)
    if not user or not speaker or (o.both and (o.user or o.speaker)):
        parser.error("expected --user and --speaker, or --both")
    try:
        events = read_events(o.events) if o.events else None
        figures = score(user, speaker, read_labels(o.labels), events, o.floor)
    except BadInput as e:
        print(f"score: {e}", file=sys.stderr)
        return 2
    print(json.dumps(figures, indent=1) if o.json else say(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
