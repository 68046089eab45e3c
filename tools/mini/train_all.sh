#!/bin/bash
# All stages of parley-mini on one GPU, as far as they can, beside each other.
#
# usage: train_all.sh VOICES TOKENIZER WORK SECONDS [questions answers]
#   VOICES     archive of pack_voices.py
#   TOKENIZER  folder of tokenizer.json
#   WORK       folder for data (WORK/data, WORK/more) and for weights and logs (WORK/out)
#   SECONDS    when the vocoder and the Thinker, which gain from every second, have to be done
# Seconds of the other stages: CODEC, TALKER.
set -u
here=$(dirname "$(readlink -f "$0")")
voices=$(readlink -f "$1") tokenizer=$(readlink -f "$2") work=$3 limit=$4
questions=${5:-45000} answers=${6:-14000}
data=$work/data more=$work/more out=$work/out
mkdir -p "$data" "$more" "$out"
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=2 TORCHINDUCTOR_COMPILE_THREADS=2
cd "$here" || exit

stage() { # log file, command
    local log=$1
    shift
    "$@" >>"$out/$log.log" 2>&1 || echo "FAILED: $*" >>"$out/$log.log"
}

synthesise() { # folder, seed, teacher or questions
    stage synth python3 synth.py --voices "$voices" --out "$1" --seed "$2" --only "$3" \
        --jobs "${JOBS:-15}" --questions "$questions" --answers "$answers"
}

left() { echo $((limit - SECONDS)); }

synthesise "$data" 1 questions
stage thinker python3 train_thinker.py "$data" "$out" "$tokenizer" --seconds "$(($(left) - 40))" &
synthesise "$data" 1 teacher
stage codec python3 train_codec.py "$data" "$out" --seconds "${CODEC:-50}"
stage vocoder python3 train_vocoder.py "$out" --seconds "$(($(left) - 30))" &
synthesise "$more" 2 teacher
stage codec python3 train_codec.py "$more" "$more" --use "$out/codec.pt"
stage talker python3 train_talker.py "$out" "$tokenizer" --more "$more/codes.pt" \
    --seconds "${TALKER:-200}" &
wait
echo done >"$out/all.done"
