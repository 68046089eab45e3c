#!/bin/sh
# Fetches the vocabulary of the Qwen models for the tokenizer tests: tools/fetch_qwen_vocab.sh [DIR]
#
# One data file is taken out of the `dashscope` wheel and converted to vocab.json and merges.txt in
# DIR, which is build-data/qwen-vocab unless said. Does nothing when they are there already.
set -eu
hash=b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186
root=$(cd "$(dirname "$0")/.." && pwd)
target=${1:-$root/build-data/qwen-vocab}
stamp=$target/source.sha256
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$hash" ]; then
    exit 0
fi
ranks=$(mktemp)
trap 'rm -f "$ranks"' EXIT
"$root/tools/fetch_member.sh" dashscope==2.0.2 dashscope/resources/qwen.tiktoken "$hash" "$ranks"
rm -f "$stamp"
python3 "$root/tools/qwen_vocab.py" "$ranks" "$target"
echo "$hash" > "$stamp"
