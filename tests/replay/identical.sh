#!/bin/sh
# tests/replay/identical.sh PARLEY ROOT FOLDER SCENARIO... - the same scenario several times, with
# one thread and with several, gives the same log and the same samples, byte for byte.
set -u
parley=$1 root=$2 folder=$3
shift 3
model=$root/models/parley-mini
if [ ! -r "$model/model-00001-of-00002.safetensors" ]; then
    echo "skip: the weights of models/parley-mini are not here"
    exit 77
fi
cd "$root" || exit 1
for scenario in "$@"; do
    first=""
    for run in 1 2 3; do
        out=$folder/identical-$run
        "$parley" replay "$scenario" --model "$model" --vad models/vad/silero.bin --threads $run \
            --out "$out.wav" --events "$out.jsonl" --quiet >"$out.txt" 2>&1
        [ -s "$out.jsonl" ] || { cat "$out.txt"; exit 1; }
        if [ -z "$first" ]; then
            first=$out
        elif ! cmp "$first.wav" "$out.wav" || ! cmp "$first.jsonl" "$out.jsonl"; then
            echo "$scenario: run $run is another one than run 1"
            exit 1
        fi
    done
    echo "$scenario: three runs, the same bytes"
done
