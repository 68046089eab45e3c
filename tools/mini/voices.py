"""Speech engines of parley-mini's data: flite, espeak-ng and RHVoice through their libraries,
Piper's "joe" and Kokoro through ONNX Runtime.  In-process calls cost a tenth of starting a program each time.

`Voices(folder)` reads what pack_voices.py packed; `say(voice, text, r)` gives float samples and
their rate. `draw(r)` makes up a speaker for training; JUDGE and DEVELOP are never heard there.
"""

import ctypes as C
import json
import re
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

# ------------------------------------------------------------------------------------------------
# settings
# ------------------------------------------------------------------------------------------------
# `warp` plays the voice faster and higher, which changes the size of the speaker; the pace is made
# good by the engine's own stretch.  Every dialogue of the training has a speaker of its own.

ESPEAK_ACCENTS = ["en-us"] * 5 + ["en", "en", "en-gb-x-rp", "en-gb-x-rp", "en-gb-x-gbclan",
                                  "en-gb-x-gbcwmd", "en-us-nyc", "en-029"]
ESPEAK_VARIANTS = """
m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 m1 m3 m7 f2 f4 Alex Alicia Andrea Andy Annie Denis Diogo
Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike Mr Nguyen adam anika announcer antonio
aunty belinda benjamin boris caleb david ed edward edward2 grandma grandpa gustave iven iven2 iven3
john klatt klatt2 klatt3 klatt4 linda marcelo max michel miguel norbert pablo paul pedro quincy rob
robert sandro shelby steph steph2 steph3 travis victor zac""".split()
RHVOICES = ["Bdl", "Clb", "Ksp", "Bdl", "Clb", "Ksp", "Slt"]
ENGINES = {"joe": 12, "slt": 20, "kal16": 13, "kal": 3, "espeak": 28, "rhvoice": 24}  # shares


def _spread(r, low, high):
    """A factor between two others, both sides of 1 as likely for their size."""
    return low * (high / low) ** r.random()


def draw(r):
    """A speaker for a dialogue of the training."""
    engine = r.choices(list(ENGINES), list(ENGINES.values()))[0]
    if engine == "joe":
        return {"engine": "joe", "warp": _spread(r, 0.84, 1.4), "noise": r.uniform(0.3, 0.9)}
    if engine == "espeak":
        name = f"{r.choice(ESPEAK_ACCENTS)}+{r.choice(ESPEAK_VARIANTS)}"
        return {"engine": "espeak", "name": name, "warp": _spread(r, 0.88, 1.14),
                "pitch": r.uniform(20, 80)}
    if engine == "rhvoice":
        return {"engine": "rhvoice", "name": r.choice(RHVOICES), "warp": _spread(r, 0.78, 1.25),
                "pitch": _spread(r, 0.75, 1.35)}
    low, high, deep, tall = {"slt": (0.76, 1.2, 140, 215), "kal16": (0.84, 1.2, 80, 150),
                             "kal": (0.9, 1.1, 85, 130)}[engine]
    return {"engine": "flite", "name": "cmu_us_" + engine, "warp": _spread(r, low, high),
            "pitch": r.uniform(deep, tall)}


JUDGE = {
    "flite-rms": {"engine": "flite", "name": "cmu_us_rms", "warp": 1.0},
    "flite-awb": {"engine": "flite", "name": "cmu_us_awb", "warp": 1.0},
    "espeak-scottish": {"engine": "espeak", "name": "en-gb-scotland", "warp": 1.0},
    "kokoro-alpha": {"engine": "kokoro", "name": "jf_alpha", "warp": 1.0},
    "kokoro-kumo": {"engine": "kokoro", "name": "jm_kumo", "warp": 1.0},
}
# An engine that training never hears either: its voice chose between trainings, so it judges none.
DEVELOP = {"festival-ked": {"engine": "festival", "name": "ked_diphone", "warp": 1.0}}

# ------------------------------------------------------------------------------------------------
# engines
# ------------------------------------------------------------------------------------------------


def _library(folder, name):
    return C.CDLL(str(Path(folder) / name), mode=C.RTLD_GLOBAL)


class _FliteWave(C.Structure):
    _fields_ = [("type", C.c_char_p), ("rate", C.c_int), ("samples", C.c_int),
                ("channels", C.c_int), ("data", C.POINTER(C.c_short))]


class Flite:
    """One registered voice per name; its features set pitch and pace."""

    def __init__(self, folder):
        self.folder, self.voices = folder, {}
        _library(folder, "libasound.so.2")      # loaded ahead, so that no other is looked for
        self.lib = _library(folder, "libflite.so.1")
        for name in ("usenglish", "cmulex"):
            _library(folder, f"libflite_{name}.so.1")
        pointer, text = C.c_void_p, C.c_char_p
        for name, result, *arguments in (
                ("flite_synth_text", pointer, text, pointer),
                ("utt_wave", C.POINTER(_FliteWave), pointer), ("delete_utterance", None, pointer),
                ("utt_relation", pointer, pointer, text), ("relation_head", pointer, pointer),
                ("item_next", pointer, pointer), ("ffeature_float", C.c_float, pointer, text),
                ("feat_set_float", None, pointer, text, C.c_float)):
            function = getattr(self.lib, name)
            function.restype, function.argtypes = result, arguments
        self.lib.flite_init()
        self.ends = []      # of the words that were said last, as shares of the sound

    def voice(self, name):
        if name not in self.voices:
            register = getattr(_library(self.folder, f"libflite_{name}.so.1"), "register_" + name)
            register.restype, register.argtypes = C.c_void_p, [C.c_char_p]
            self.voices[name] = register(None)
        return self.voices[name]

    def say(self, text, name, stretch=1.0, pitch=None):
        voice = self.voice(name)
        features = C.cast(voice + 8, C.POINTER(C.c_void_p))[0]  # second member of cst_voice
        self.lib.feat_set_float(features, b"duration_stretch", stretch)
        if pitch:
            self.lib.feat_set_float(features, b"int_f0_target_mean", pitch)
        utterance = self.lib.flite_synth_text(text.encode(), voice)
        w = self.lib.utt_wave(utterance)[0]
        samples = np.ctypeslib.as_array(w.data, (w.samples,)).astype(np.float32) / 32768
        rate = w.rate
        self._note_ends(utterance, len(samples) / rate)
        self.lib.delete_utterance(utterance)
        return samples, rate

    def _note_ends(self, utterance, seconds):
        self.ends.clear()
        word = self.lib.relation_head(self.lib.utt_relation(utterance, b"Token"))
        while word:     # a token of the text may be several words
            end = self.lib.ffeature_float(word, b"daughtern.R:SylStructure.daughtern.daughtern."
                                                b"R:Segment.end")
            self.ends.append(end / seconds)
            word = self.lib.item_next(word)

    def word_end(self, k):
        """Where word k (from 1) of what was said last ends, as a share of it; None = not known."""
        return self.ends[k - 1] if 0 < k <= len(self.ends) else None


class _EspeakEvent(C.Structure):
    _fields_ = [("type", C.c_int), ("unique", C.c_uint), ("text", C.c_int), ("length", C.c_int),
                ("ms", C.c_int), ("sample", C.c_int), ("user", C.c_void_p), ("id", C.c_char * 8)]


class Espeak:
    RATE, PITCH, RANGE = 1, 3, 4    # espeak_PARAMETER
    WORD = 1                        # espeak_EVENT_TYPE
    CALLBACK = C.CFUNCTYPE(C.c_int, C.POINTER(C.c_short), C.c_int, C.POINTER(_EspeakEvent))

    def __init__(self, folder):
        for name in ("libsonic.so.0", "libpcaudio.so.0"):
            _library(folder, name)
        self.lib = _library(folder, "libespeak-ng.so.1")
        self.rate = self.lib.espeak_Initialize(2, 0, str(folder).encode(), 0)  # 2: synchronous
        if self.rate <= 0:
            raise RuntimeError(f"espeak-ng finds no data in {folder}")
        self.lib.espeak_TextToPhonemes.restype = C.c_char_p
        self.text, self.blocks, self.callback = "", [], self.CALLBACK(self._collect)
        self.starts = {}    # sample at which a word begins, by its place in the text
        self.lib.espeak_SetSynthCallback(self.callback)

    def _collect(self, wave, n, events):
        i = 0
        while events and events[i].type:
            if events[i].type == self.WORD:
                self.starts[events[i].text - 1] = events[i].sample
            i += 1
        if wave and n > 0:
            self.blocks.append(np.ctypeslib.as_array(wave, (n,)).copy())
        return 0

    def word_end(self, k):
        """As Flite's; where the next word begins."""
        places = [m.start() for m in re.finditer(r"\S+", self.text)]
        start = self.starts.get(places[k]) if 0 < k < len(places) else None
        return start / sum(map(len, self.blocks)) if start else None

    def select(self, name):
        if self.lib.espeak_SetVoiceByName(name.encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {name}")

    def say(self, text, name, speed=165, pitch=50, spread=50):
        self.select(name)
        for parameter, value in ((self.RATE, speed), (self.PITCH, pitch), (self.RANGE, spread)):
            self.lib.espeak_SetParameter(parameter, int(value), 0)
        self.blocks.clear()
        self.starts.clear()
        self.text, raw = text, text.encode()
        self.lib.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, 1, None, None)
        return np.concatenate(self.blocks).astype(np.float32) / 32768, self.rate

    def phonemes(self, text, name="en-us"):
        """IPA of a text with its marks: the library drops them, so it gets clause by clause."""
        self.select(name)
        out = []
        for clause, mark in re.findall(r"([^,.:;?!]+)([,.:;?!]?)", text):
            pointer, ipa = C.c_char_p(clause.strip().encode()), []
            while pointer.value:
                ipa.append(self.lib.espeak_TextToPhonemes(C.byref(pointer), 1, 2).decode())
            out.append("".join(ipa) + mark)
        return " ".join(out)


class _RHParameters(C.Structure):       # RHVoice_init_params
    _fields_ = [("data", C.c_char_p), ("config", C.c_char_p), ("resources", C.c_void_p),
                ("rate", C.c_void_p), ("speech", C.c_void_p), ("others", C.c_void_p * 7),
                ("options", C.c_uint)]


class _RHSetting(C.Structure):          # RHVoice_synth_params
    _fields_ = [("voice", C.c_char_p), ("absolute", C.c_double * 3), ("rate", C.c_double),
                ("pitch", C.c_double), ("volume", C.c_double), ("punctuation", C.c_int),
                ("marks", C.c_char_p), ("capitals", C.c_int), ("flags", C.c_int)]


class RHVoice:
    """Statistical voices of four speakers; build_rhvoice.sh made the library."""

    def __init__(self, folder):
        pointer = C.c_void_p
        self.lib = _library(folder, "librhvoice.so")
        for name, result, *arguments in (
                ("new_tts_engine", pointer, C.POINTER(_RHParameters)),
                ("new_message", pointer, pointer, C.c_char_p, C.c_uint, C.c_int,
                 C.POINTER(_RHSetting), pointer),
                ("speak", C.c_int, pointer), ("delete_message", None, pointer)):
            function = getattr(self.lib, "RHVoice_" + name)
            function.restype, function.argtypes = result, arguments
        self.blocks, self.rate = [], 24000
        self.hear = (C.CFUNCTYPE(C.c_int, C.c_int, pointer)(self._set_rate),
                     C.CFUNCTYPE(C.c_int, C.POINTER(C.c_short), C.c_uint, pointer)(self._collect))
        data = str(Path(folder) / "rhvoice").encode()
        rate, speech = (C.cast(f, pointer) for f in self.hear)
        self.engine = self.lib.RHVoice_new_tts_engine(
            _RHParameters(data=data, config=data, rate=rate, speech=speech))
        if not self.engine:
            raise RuntimeError(f"RHVoice finds no data in {folder}")

    def _set_rate(self, rate, _user):
        self.rate = rate
        return 1

    def _collect(self, samples, n, _user):
        self.blocks.append(np.ctypeslib.as_array(samples, (n,)).copy())
        return 1

    @staticmethod
    def word_end(_k):
        return None

    def say(self, text, name, rate=1.0, pitch=1.0):
        self.blocks.clear()
        setting = _RHSetting(voice=name.encode(), rate=rate, pitch=pitch, volume=1.0)
        raw = text.encode()
        message = self.lib.RHVoice_new_message(self.engine, raw, len(raw), 0, setting, None)
        spoken = message and self.lib.RHVoice_speak(message)
        self.lib.RHVoice_delete_message(message)
        if not spoken or not self.blocks:
            raise RuntimeError(f"RHVoice's {name} does not say: {text}")
        return np.concatenate(self.blocks).astype(np.float32) / 32768, self.rate


def _session(model):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Joe:
    """Piper's voice "joe": phonemes of espeak-ng to 22,050 Hz."""

    def __init__(self, folder, espeak):
        config = json.loads((Path(folder) / "joe.json").read_text(encoding="utf-8"))
        self.ids, self.rate = config["phoneme_id_map"], config["audio"]["sample_rate"]
        self.espeak, self.session = espeak, _session(str(Path(folder) / "joe.onnx"))

    @staticmethod
    def word_end(_k):
        return None

    def say(self, text, length=1.0, noise=0.667, noise_w=0.8):
        ids = [*self.ids["^"]]
        for c in self.espeak.phonemes(text):
            ids += [*self.ids["_"], *self.ids.get(c, [])]
        ids += [*self.ids["_"], *self.ids["$"]]
        feed = {"input": np.array([ids], np.int64), "input_lengths": np.array([len(ids)], np.int64),
                "scales": np.array([noise, length, noise_w], np.float32)}
        return self.session.run(None, feed)[0].ravel(), self.rate


class Kokoro:
    """Kokoro-82M with the styles at hand: for judging alone, it is too slow for training data."""

    # espeak-ng's signs to the ones that Kokoro was trained with
    SIGNS = [("e\u026a", "A"), ("a\u026a", "I"), ("o\u028a", "O"), ("a\u028a", "W"),
             ("\u0254\u026a", "Y"), ("t\u0283", "\u02a7"), ("d\u0292", "\u02a4"),
             ("\u025c\u02d0", "\u025c\u0279"), ("\u025a", "\u0259\u0279"), ("r", "\u0279"),
             ("\u0250", "\u0259"), ("\u02d0", "")]

    def __init__(self, folder, espeak):
        folder = Path(folder)
        self.vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        self.styles = np.load(folder / "voices_ja.npz")
        self.espeak, self.session = espeak, _session(str(folder / "kokoro.onnx"))

    def say(self, text, name, speed=1.0):
        ipa = self.espeak.phonemes(text)
        for old, new in self.SIGNS:
            ipa = ipa.replace(old, new)
        ids = [0, *(self.vocab[c] for c in ipa if c in self.vocab), 0]
        feed = {"tokens": np.array([ids], np.int64), "speed": np.array([speed], np.float32),
                "style": self.styles[name][len(ids) - 2].reshape(1, 256).astype(np.float32)}
        return self.session.run(None, feed)[0].ravel(), 24000


class Festival:
    """A Festival voice of the system's packages, one process a sentence."""

    def say(self, text, name, stretch=1.0):
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            subprocess.run(["text2wave", "-o", file.name, "-eval", f"(voice_{name})", "-eval",
                            f"(Parameter.set 'Duration_Stretch {stretch:.3f})"], check=True,
                           input=text, text=True, capture_output=True)
            with wave.open(file.name) as w:
                raw = np.frombuffer(w.readframes(w.getnframes()), "<i2")
                return raw.astype(np.float32) / 32768, w.getframerate()


class Voices:
    """Engines by name, each started when first needed."""

    def __init__(self, folder, kokoro=None):
        self.folder, self.kokoro, self.engines = Path(folder), kokoro, {}

    def engine(self, name):
        if name not in self.engines:
            self.engines[name] = {
                "flite": lambda: Flite(self.folder), "espeak": lambda: Espeak(self.folder),
                "joe": lambda: Joe(self.folder, self.engine("espeak")),
                "rhvoice": lambda: RHVoice(self.folder),
                "kokoro": lambda: Kokoro(self.kokoro, self.engine("espeak")),
                "festival": Festival,
            }[name]()
        return self.engines[name]

    def say(self, voice, text, r, vary=1.0):
        """Samples and rate of a voice setting; `vary` spreads pace and melody at random."""
        engine, name, warp = self.engine(voice["engine"]), voice.get("name"), voice["warp"]
        pace = 1 + vary * r.uniform(-0.18, 0.18)    # > 1 is slower
        if voice["engine"] == "flite":
            pitch = voice.get("pitch")
            pitch = pitch * (1 + vary * r.uniform(-0.06, 0.06)) if pitch else None
            samples, rate = engine.say(text, name, pace * warp, pitch)
        elif voice["engine"] == "espeak":
            pitch = voice.get("pitch", 50) + vary * r.uniform(-20, 20)
            samples, rate = engine.say(text, name, 160 / (pace * warp), min(99, max(0, pitch)),
                                       50 + vary * r.uniform(-30, 30))
        elif voice["engine"] == "joe":
            samples, rate = engine.say(text, pace * warp, voice.get("noise", 0.667),
                                       0.8 + vary * r.uniform(-0.4, 0.2))
        elif voice["engine"] == "rhvoice":
            pitch = voice["pitch"] / warp * (1 + vary * r.uniform(-0.08, 0.08))
            samples, rate = engine.say(text, name, 1 / (pace * warp), pitch)
        elif voice["engine"] == "kokoro":
            samples, rate = engine.say(text, name, 1 / pace)
        else:
            samples, rate = engine.say(text, name, pace)
        return samples, rate * warp
