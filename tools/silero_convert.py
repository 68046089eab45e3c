#!/usr/bin/env python3
"""tools/silero_convert.py SOURCE.onnx TARGET.bin - the voice activity weights in our own layout.

SOURCE is silero_vad_16k_op15.onnx of the `silero-vad` package; tools/fetch_silero_vad.sh runs
this. (The package's silero_vad_16k.safetensors holds other, older weights than those it runs.)
TARGET is described in models/vad/README.md: a header of 64 bytes, then fp32 matrices [in, out]
with their biases. A convolution's inputs are [tap, channel]; the LSTM's inputs are [x, hidden] and
its two biases are added. Only the Python standard library is used.
"""
import array
import struct
import sys

# Field numbers of onnx.proto: ModelProto.graph, GraphProto.initializer, and of TensorProto.
GRAPH, INITIALIZER, DIMS, TYPE, NAME, RAW = 7, 5, 1, 2, 8, 9
FLOAT = 1
SIZES = {"stft.forward_basis_buffer": [258, 1, 256],
         "encoder.0.reparam_conv.weight": [128, 129, 3], "encoder.0.reparam_conv.bias": [128],
         "encoder.1.reparam_conv.weight": [64, 128, 3], "encoder.1.reparam_conv.bias": [64],
         "encoder.2.reparam_conv.weight": [64, 64, 3], "encoder.2.reparam_conv.bias": [64],
         "encoder.3.reparam_conv.weight": [128, 64, 3], "encoder.3.reparam_conv.bias": [128],
         "decoder.rnn.weight_ih": [512, 128], "decoder.rnn.weight_hh": [512, 128],
         "decoder.rnn.bias_ih": [512], "decoder.rnn.bias_hh": [512],
         "decoder.decoder.2.weight": [1, 128, 1], "decoder.decoder.2.bias": [1]}


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def fields(data):
    """Yields (number, value) of one protobuf message; the value is an int or bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        else:
            size, at = varint(data, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
            value, at = data[at:at + size], at + size
        yield key >> 3, value


def dims(entries):
    """Sizes, which may be packed into bytes or stand one by one."""
    for number, value in entries:
        if number != DIMS:
            continue
        at = 0
        while isinstance(value, bytes) and at < len(value):
            size, at = varint(value, at)
            yield size
        if isinstance(value, int):
            yield value


def read(path):
    """{name: array of floats}"""
    with open(path, "rb") as f:
        model = dict(fields(f.read()))
    tensors = {}
    for number, value in fields(model[GRAPH]):
        if number != INITIALIZER:
            continue
        entries = list(fields(value))
        tensor = dict(entries)
        name = tensor[NAME].decode().removeprefix("model.")
        found = list(dims(entries))
        if tensor[TYPE] != FLOAT or found != SIZES.get(name):
            sys.exit(f"{path}: {name}: type {tensor[TYPE]}, {found}; expected {SIZES.get(name)}")
        tensors[name] = array.array("f", tensor[RAW])
        if sys.byteorder == "big":
            tensors[name].byteswap()
    if tensors.keys() != SIZES.keys():
        sys.exit(f"{path}: missing {sorted(SIZES.keys() - tensors.keys())}")
    return tensors


def matrix(w, out, channels, taps=1):
    """A weight [out, channels, taps] as rows of [tap, channel, out]."""
    result = array.array("f")
    for tap in range(taps):
        for channel in range(channels):
            result.extend(w[(o * channels + channel) * taps + tap] for o in range(out))
    return result


def convert(t):
    floats = matrix(t["stft.forward_basis_buffer"], 258, 256)
    for i in range(4):
        name = f"encoder.{i}.reparam_conv."
        floats += matrix(t[name + "weight"], *SIZES[name + "weight"]) + t[name + "bias"]
    floats += matrix(t["decoder.rnn.weight_ih"], 512, 128)
    floats += matrix(t["decoder.rnn.weight_hh"], 512, 128)
    floats.extend(a + b for a, b in zip(t["decoder.rnn.bias_ih"], t["decoder.rnn.bias_hh"]))
    return floats + t["decoder.decoder.2.weight"] + t["decoder.decoder.2.bias"]


def fnv1a(data):
    value = 0xcbf29ce484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    return value


def main(source, target):
    floats = convert(read(source))
    if sys.byteorder == "big":
        floats.byteswap()
    data = floats.tobytes()
    header = struct.pack("<8s6IQ24x", b"PARLEYVA", 1, 16000, 512, 64, len(floats), 0, fnv1a(data))
    with open(target, "wb") as f:
        f.write(header + data)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.split("\n")[0])
    main(*sys.argv[1:])
