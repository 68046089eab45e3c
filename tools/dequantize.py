#!/usr/bin/env python3
"""tools/dequantize.py - 8-bit weights back to ordinary ones, for programs that cannot read them.

    tools/dequantize.py IN_DIR OUT_DIR [--dtype bf16|f32]

IN_DIR is a checkpoint with matrices as `parley quantize` writes them (compressed-tensors,
pack-quantized, 8 bits, symmetric). OUT_DIR gets the same checkpoint with plain matrices and without
quantization_config; the reference in `transformers` loads it. A weight is (byte - 128) * scale,
which f32 holds exactly; bf16 rounds it to 8 bits of precision. Needs numpy only.
"""
import argparse
import json
import os
import shutil
import struct
import sys

import numpy as np

SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "BF16": 2, "F16": 2, "I16": 2,
         "U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}
PARTS = ("_packed", "_scale", "_shape")


class File:
    """One .safetensors file: header and mapped data."""

    def __init__(self, path):
        with open(path, "rb") as f:
            length, = struct.unpack("<Q", f.read(8))
            self.header = json.loads(f.read(length))
        self.header.pop("__metadata__", None)
        self.data = np.memmap(path, mode="r", offset=8 + length)

    def raw(self, name):
        begin, end = self.header[name]["data_offsets"]
        return self.data[begin:end]

    def numbers(self, name):
        """A tensor of floats or sizes as float32 or int64."""
        kind, shape = self.header[name]["dtype"], self.header[name]["shape"]
        raw = self.raw(name).tobytes()
        if kind == "BF16":
            wide = np.frombuffer(raw, "<u2").astype("<u4") << 16
            return wide.view("<f4").reshape(shape)
        kinds = {"F16": "<f2", "F32": "<f4", "I64": "<i8", "I32": "<i4"}
        values = np.frombuffer(raw, kinds[kind]).reshape(shape)
        return values.astype("<f4" if kind[0] == "F" else "<i8")


def to_bf16(x):
    """Nearest, ties to even; weights are finite."""
    u = np.ascontiguousarray(x, "<f4").view("<u4")
    return ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype("<u2")


def weights(where, base):
    """The matrix X.weight in float32; its parts may lie in different files."""
    packed, scale, shape = (where[base + part] for part in PARTS)
    rows, cols = packed_shape = shape.numbers(base + "_shape").tolist()
    stored = packed.header[base + "_packed"]["shape"]
    if packed.header[base + "_packed"]["dtype"] != "I32" or stored != [rows, (cols + 3) // 4]:
        sys.exit(f"{base}: found {stored}, expected 8-bit weights of {packed_shape} in I32")
    levels = np.frombuffer(packed.raw(base + "_packed").tobytes(), "u1")
    levels = levels.reshape(rows, -1)[:, :cols].astype("<f4") - 128
    scales = scale.numbers(base + "_scale")
    group = -(-cols // scales.shape[1])
    return levels * np.repeat(scales, group, axis=1)[:, :cols]


def entries(file, where, dtype):
    """Yields (name, dtype, shape, bytes) of what the new file holds."""
    for name in sorted(file.header, key=lambda n: file.header[n]["data_offsets"][0]):
        base = next((name[:-len(p)] for p in PARTS if name.endswith(".weight" + p)), None)
        if base is None:
            info = file.header[name]
            yield name, info["dtype"], info["shape"], file.raw(name)
        elif name.endswith("_packed"):
            w = weights(where, base)
            data = to_bf16(w) if dtype == "bf16" else w
            yield base, dtype.upper(), list(w.shape), data.reshape(-1).view("u1")


def write(path, tensors):
    tensors = sorted(tensors, key=lambda t: (-SIZES[t[1]], t[0]))
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, _, _, data in tensors:
            f.write(np.ascontiguousarray(data).tobytes())
    return at


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", metavar="IN_DIR")
    parser.add_argument("target", metavar="OUT_DIR")
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    a = parser.parse_args()
    if os.path.isdir(a.target) and os.listdir(a.target):
        sys.exit(f"{a.target}: found files in it, expected a new or empty directory")
    os.makedirs(a.target, exist_ok=True)
    names = sorted(n for n in os.listdir(a.source) if n.endswith(".safetensors"))
    files = {n: File(os.path.join(a.source, n)) for n in names}
    where = {tensor: f for f in files.values() for tensor in f.header}
    index, total = {}, 0
    for name, f in files.items():
        tensors = list(entries(f, where, a.dtype))
        total += write(os.path.join(a.target, name), tensors)
        index.update({t[0]: name for t in tensors})
    for name in os.listdir(a.source):
        path = os.path.join(a.source, name)
        if os.path.isfile(path) and not name.endswith((".safetensors", ".index.json")):
            shutil.copy(path, a.target)
    if "model.safetensors.index.json" in os.listdir(a.source):
        with open(os.path.join(a.target, "model.safetensors.index.json"), "w") as f:
            json.dump({"metadata": {"total_size": total}, "weight_map": index}, f, indent=1)
    path = os.path.join(a.target, "config.json")
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    config.pop("quantization_config", None)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f, indent=2)


if __name__ == "__main__":
    main()
