"""Speech engines of parley-mini's data: flite and espeak-ng through their libraries, Piper's "joe"
and Kokoro through ONNX Runtime.  In-process calls cost a tenth of starting a program each time.

`Voices(folder)` reads what pack_voices.py packed; `say(voice, text, r)` gives float samples and
their rate. TRAIN and JUDGE name the voice settings: no judge is ever heard in training.
"""

import ctypes as C
import json
import re
from pathlib import Path

import numpy as np

# ------------------------------------------------------------------------------------------------
# settings
# ------------------------------------------------------------------------------------------------
# `warp` plays the voice faster and higher, which changes the size of the speaker; the pace is made
# good by the engine's own stretch.

ESPEAK_ACCENTS = {
    "en-us": "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 Alex Andy Annie Gene Michael Mike linda steph "
             "klatt klatt4 max",
    "en": "m1 m3 m7 f2 f4 Denis Lee anika caleb",
    "en-gb-x-rp": "m2 m4 f1 f3 edward shelby",
    "en-gb-x-gbclan": "m3 f2 f5",
    "en-gb-x-gbcwmd": "m1 f4",
    "en-us-nyc": "m5 m8 f1 f3",
    "en-029": "m3 f2",
}


def _train_voices():
    out = {}
    for warp in (0.8, 0.86, 0.92, 1.0, 1.08, 1.16):
        for pitch in (150, 175, 205):
            out[f"slt-{warp}-{pitch}"] = {"engine": "flite", "name": "cmu_us_slt", "warp": warp,
                                          "pitch": pitch, "weight": 1.0}
    for warp in (0.9, 1.0, 1.12):
        for pitch in (90, 110, 135):
            out[f"kal16-{warp}-{pitch}"] = {"engine": "flite", "name": "cmu_us_kal16",
                                            "warp": warp, "pitch": pitch, "weight": 1.0}
    out["kal-1.0-110"] = {"engine": "flite", "name": "cmu_us_kal", "warp": 1.0, "pitch": 110,
                          "weight": 1.0}
    for warp in (0.88, 0.94, 1.0, 1.07, 1.15, 1.25, 1.35):
        out[f"joe-{warp}"] = {"engine": "joe", "warp": warp, "weight": 3.6}
    for accent, variants in ESPEAK_ACCENTS.items():
        for variant in variants.split():
            out[f"espeak-{accent}-{variant}"] = {"engine": "espeak", "name": f"{accent}+{variant}",
                                                 "warp": 1.0, "weight": 0.7}
    return out


TRAIN = _train_voices()
JUDGE = {
    "flite-rms": {"engine": "flite", "name": "cmu_us_rms", "warp": 1.0},
    "flite-awb": {"engine": "flite", "name": "cmu_us_awb", "warp": 1.0},
    "espeak-scottish": {"engine": "espeak", "name": "en-gb-scotland", "warp": 1.0},
    "kokoro-alpha": {"engine": "kokoro", "name": "jf_alpha", "warp": 1.0},
    "kokoro-kumo": {"engine": "kokoro", "name": "jm_kumo", "warp": 1.0},
}

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
        self.lib.flite_text_to_wave.restype = C.POINTER(_FliteWave)
        self.lib.flite_text_to_wave.argtypes = [C.c_char_p, C.c_void_p]
        self.lib.feat_set_float.argtypes = [C.c_void_p, C.c_char_p, C.c_float]
        self.lib.delete_wave.argtypes = [C.c_void_p]
        self.lib.flite_init()

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
        wave = self.lib.flite_text_to_wave(text.encode(), voice)
        w = wave[0]
        samples = np.ctypeslib.as_array(w.data, (w.samples,)).astype(np.float32) / 32768
        rate = w.rate
        self.lib.delete_wave(wave)
        return samples, rate


class Espeak:
    RATE, PITCH, RANGE = 1, 3, 4    # espeak_PARAMETER
    CALLBACK = C.CFUNCTYPE(C.c_int, C.POINTER(C.c_short), C.c_int, C.c_void_p)

    def __init__(self, folder):
        for name in ("libsonic.so.0", "libpcaudio.so.0"):
            _library(folder, name)
        self.lib = _library(folder, "libespeak-ng.so.1")
        self.rate = self.lib.espeak_Initialize(2, 0, str(folder).encode(), 0)  # 2: synchronous
        if self.rate <= 0:
            raise RuntimeError(f"espeak-ng finds no data in {folder}")
        self.lib.espeak_TextToPhonemes.restype = C.c_char_p
        self.blocks, self.callback = [], self.CALLBACK(self._collect)
        self.lib.espeak_SetSynthCallback(self.callback)

    def _collect(self, wave, n, _events):
        if wave and n > 0:
            self.blocks.append(np.ctypeslib.as_array(wave, (n,)).copy())
        return 0

    def select(self, name):
        if self.lib.espeak_SetVoiceByName(name.encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {name}")

    def say(self, text, name, speed=165, pitch=50, spread=50):
        self.select(name)
        for parameter, value in ((self.RATE, speed), (self.PITCH, pitch), (self.RANGE, spread)):
            self.lib.espeak_SetParameter(parameter, int(value), 0)
        self.blocks.clear()
        raw = text.encode()
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


class Voices:
    """Engines by name, each started when first needed."""

    def __init__(self, folder, kokoro=None):
        self.folder, self.kokoro, self.engines = Path(folder), kokoro, {}

    def engine(self, name):
        if name not in self.engines:
            self.engines[name] = {
                "flite": lambda: Flite(self.folder), "espeak": lambda: Espeak(self.folder),
                "joe": lambda: Joe(self.folder, self.engine("espeak")),
                "kokoro": lambda: Kokoro(self.kokoro, self.engine("espeak")),
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
            samples, rate = engine.say(text, name, 160 / pace, 50 + vary * r.uniform(-25, 25),
                                       50 + vary * r.uniform(-30, 30))
        elif voice["engine"] == "joe":
            samples, rate = engine.say(text, pace * warp, 0.667,
                                       0.8 + vary * r.uniform(-0.4, 0.2))
        else:
            samples, rate = engine.say(text, name, 1 / pace)
        return samples, rate * warp
