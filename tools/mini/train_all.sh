#!/bin/bash
# All stages of parley-mini on one GPU, as far as they can, beside each other.
#
# usage: train_all.sh VOICES TOKENIZER WORK [questions answers]
#   VOICES     archive of pack_voices.py
#   TOKENIZER  folder of tokenizer.json
#   WORK       folder for data (WORK/data), weights and logs (WORK/out)
# Seconds of the stages: CODEC, VOCODER, TALKER, THINKER.
set -u
here=$(dirname "$(readlink -f "$0")")
voices=$(readlink -f "$1") tokenizer=$(readlink -f "$2") work=$3
questions=${4:-45000} answers=${5:-18000}
data=$work/data out=$work/out
mkdir -p "$data" "$out"
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=2 TORCHINDUCTOR_COMPILE_THREADS=2
cd "$here" || exit

stage() { # log file, command
    local log=$1
    shift
    "$@" >"$out/$log.log" 2>&1 || echo "FAILED: $*" >>"$out/$log.log"
}

await() { # file that says that data is complete; stops waiting when synthesis failed
    until [ -e "$1" ]; do
        grep -q FAILED "$out/synth.log" 2>/dev/null && exit 1
        sleep 1
    done
}

stage synth python3 synth.py --voices "$voices" --out "$data" --jobs "${JOBS:-14}" \
    --questions "$questions" --answers "$answers" &
await "$data/teacher.jsonl"
stage codec python3 train_codec.py "$data" "$out" --seconds "${CODEC:-50}" ${USE_CODEC:+--use "$USE_CODEC"}
stage vocoder python3 train_vocoder.py "$out" --seconds "${VOCODER:-450}" &
stage talker python3 train_talker.py "$out" "$tokenizer" --seconds "${TALKER:-300}" &
await "$data/questions.jsonl"
stage thinker python3 train_thinker.py "$data" "$out" "$tokenizer" --seconds "${THINKER:-600}" &
wait
echo done >"$out/all.done"
