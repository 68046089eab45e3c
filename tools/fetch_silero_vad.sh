#!/bin/sh
# Where models/vad/silero.bin comes from: tools/fetch_silero_vad.sh [TARGET]
#
# The file is part of the tree, so nobody needs this to build or run Parley. It takes one data file
# out of the `silero-vad` wheel and converts it. TARGET is models/vad/silero.bin unless said.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
target=${1:-$root/models/vad/silero.bin}
weights=$(mktemp)
trap 'rm -f "$weights"' EXIT
"$root/tools/fetch_member.sh" silero-vad==6.2.3 silero_vad/data/silero_vad_16k_op15.onnx \
    7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49 "$weights"
python3 "$root/tools/silero_convert.py" "$weights" "$target"
