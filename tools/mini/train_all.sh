#!/bin/bash
# All stages of parley-mini on one GPU, as far as they can, beside each other.
#
# usage: train_all.sh VOICES TOKENIZER WORK SECONDS [EARLIER]
#   VOICES     archive of pack_voices.py
#   TOKENIZER  folder of tokenizer.json
#   WORK       folder for data (WORK/a, WORK/b, WORK/t) and for weights and logs (WORK/out)
#   SECONDS    when the stages have to be done
#   EARLIER    codec.pt, code2wav.pt, talker.pt and thinker.pt of an earlier run, to go on from
# From the environment: QUESTIONS and ANSWERS to synthesise, SEED of both (another one, other
# data), CODEC, the seconds of that stage, and JOBS.
set -u
here=$(dirname "$(readlink -f "$0")")
voices=$(readlink -f "$1") tokenizer=$(readlink -f "$2") work=$3 limit=$4
earlier=${5:+$(readlink -f "$5")}
questions=${QUESTIONS:-64000} answers=${ANSWERS:-28000} seed=${SEED:-1}
out=$work/out
mkdir -p "$out"
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=2 TORCHINDUCTOR_COMPILE_THREADS=2
cd "$here" || exit

stage() { # log file, command
    local log=$1
    shift
    "$@" >>"$out/$log.log" 2>&1 || echo "FAILED: $*" >>"$out/$log.log"
}

synthesise() { # folder, seed, teacher or questions, questions
    stage synth python3 synth.py --voices "$voices" --unpacked "$work/voices" --out "$work/$1" \
        --seed "$2" --only "$3" --jobs "${JOBS:-15}" --questions "$4" --answers "$answers"
}

left() { echo $((limit - SECONDS - 15)); }

resume() { # stage: the option to go on from its earlier weights
    [ -z "$earlier" ] || echo "--resume $earlier/$1.pt"
}

synthesise a "$seed" questions $((questions * 3 / 8))
# shellcheck disable=SC2046  # the option is two words
stage thinker python3 train_thinker.py "$work/a,$work/b" "$out" "$tokenizer" $(resume thinker) \
    --seconds "$(left)" &
synthesise b $((seed + 1)) questions $((questions * 5 / 8))
synthesise t "$seed" teacher 0
if [ -n "$earlier" ]; then
    cp "$earlier/code2wav.pt" "$out/"
    touch "$out/code2wav.done"
    stage codec python3 train_codec.py "$work/t" "$out" --use "$earlier/codec.pt"
else
    stage codec python3 train_codec.py "$work/t" "$out" --seconds "${CODEC:-50}"
    stage vocoder python3 train_vocoder.py "$out" --seconds "$(($(left) - 15))" &
fi
# shellcheck disable=SC2046
stage talker python3 train_talker.py "$out" "$tokenizer" $(resume talker) --dropout 0.2 \
    --seconds "$(($(left) - 60))" &
wait
touch "$out/all.done"
