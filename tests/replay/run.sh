#!/bin/sh
# tests/replay/run.sh PARLEY ROOT SCENARIO - one scenario as a test, with the small model that
# ships. Exit 77: the model is not there.
set -u
parley=$1 root=$2 scenario=$3
model=$root/models/parley-mini
for part in "$model"/model-*.safetensors; do
    if [ ! -r "$part" ]; then
        echo "skip: the weights of models/parley-mini are not here"
        exit 77
    fi
done
expected=${scenario%.json}.events.jsonl
if [ ! -r "$expected" ]; then
    echo "$expected: not there; parley replay --update writes it"
    exit 1
fi
cd "$root" || exit 1
exec "$parley" replay "$scenario" --model "$model" --vad models/vad/silero.bin --threads 1
