#!/bin/bash
# tools/replay_voices.sh - makes the recordings of tests/replay/voices: synthetic voices by flite
# and espeak-ng, coughs and knocks by tools/replay_sounds.py; all 16 kHz mono FLAC.
#
#   tools/replay_voices.sh [FOLDER]      needs flite, espeak-ng, sox (Debian packages), python3
#   tools/replay_voices.sh FOLDER parts  only the parts of questions of tools/measure_turns.py, by
#                                        voices that parley-mini was not trained on; not committed
#
# The list below is the source of every spoken file: name, voice, text. The files are committed, so
# nobody needs these programs to run the tests. Origin and licences: tests/replay/README.md.
set -eu
cd "$(dirname "$0")/.."
out=${1:-tests/replay/voices}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

speak() { # name voice text
    case $2 in
    espeak:*) espeak-ng -v "${2#espeak:}" -s 150 -w "$work/$1.wav" "$3" ;;
    *) flite -voice "$2" -t "$3" -o "$work/$1.wav" ;;
    esac
    # The silence around the words goes, so that times in scenarios are times of speech; kal16
    # fills it with a hiss.
    local floor=0.3%
    [ "$2" = kal16 ] && floor=4%
    sox -D "$work/$1.wav" -r 16000 -b 16 -c 1 "$out/$1.flac" gain -n -3 \
        silence 1 0.01 $floor reverse silence 1 0.01 $floor reverse pad 0.02 0.02
}

# Questions in two parts, said one by one (tools/paused_questions.txt): part-NUMBER-1, -2. Voices
# that parley-mini and its detector of the end of a turn were not trained on take turns.
parts() {
    local voices=(rms awb espeak:en-gb-scotland)
    grep -v '^#' tools/paused_questions.txt | while IFS='|' read -r number first second; do
        local voice=${voices[$((10#$number % 3))]}
        speak "part-$number-1" "$voice" "$first"
        speak "part-$number-2" "$voice" "$second"
    done
}
if [ "${2:-}" = parts ]; then
    parts
    exit
fi

while IFS='|' read -r name voice text; do
    [ -z "$name" ] || speak "$name" "$voice" "$text"
done <<'LIST'
capital-france|slt|What is the capital of France?
capital-spain|slt|What is the capital of Spain?
capital-italy|kal16|What is the capital of Italy?
capital-japan|rms|What is the capital of Japan?
seven-plus-eight|slt|How much is seven plus eight?
three-plus-four|slt|What is three plus four?
nine-minus-two|rms|What is nine minus two?
and-times-two|slt|And times two?
and-plus-five|slt|And plus five?
and-of-germany|slt|And of Germany?
say-again|slt|Say that again.
opposite-hot|slt|What is the opposite of hot?
opposite-big|kal16|What is the opposite of big?
count-twenty|slt|Count from one to twenty.
count-ten|slt|Count from one to ten.
what-can|slt|What can you do?
spell-diamond|slt|Spell the word diamond.
day-after|slt|Which day comes after Monday?
your-name|slt|What is your name?
hello|slt|Hello there.
stop|slt|Stop.
wait|slt|Wait a moment please.
um|slt|Um.
part-capital-slt|slt|What is the capital
part-france-slt|slt|of France?
part-sum-slt|slt|How much is seven
part-eight-slt|slt|plus eight?
part-opposite-slt|slt|What is the opposite
part-hot-slt|slt|of hot?
part-tell-slt|slt|Can you tell me
part-spain-slt|slt|the capital of Spain?
part-capital-kal16|kal16|What is the capital
part-france-kal16|kal16|of France?
part-sum-kal16|kal16|How much is seven
part-eight-kal16|kal16|plus eight?
part-opposite-kal16|kal16|What is the opposite
part-hot-kal16|kal16|of hot?
part-tell-kal16|kal16|Can you tell me
part-spain-kal16|kal16|the capital of Spain?
part-capital-rms|rms|What is the capital
part-france-rms|rms|of France?
part-sum-rms|rms|How much is seven
part-eight-rms|rms|plus eight?
part-opposite-rms|rms|What is the opposite
part-hot-rms|rms|of hot?
part-tell-rms|rms|Can you tell me
part-spain-rms|rms|the capital of Spain?
mhm-1|espeak:en-us|[[m'hm]]
mhm-2|espeak:en-us+m3|[[m:h'm:]]
uh-huh|slt|Uh huh.
yeah|slt|Yeah.
okay|slt|Okay.
right|rms|Right.
mhm-3|espeak:en-us+f3|[[%m'hm]]
LIST

news="And now the weather for the rest of the week. In the north it stays cool and windy, with
some rain in the evening. Farmers in the valley hope for more of it. The river is lower than it was
last year, and the old mill has stopped. Later tonight we show a film about two brothers who build a
boat and sail around the island. Stay with us."
speak television awb "$news"

# Several voices at once, as in a full room.
crowd="The people in this room are all talking at the same time, about their work, their children,
the food and the long way home, and nobody listens to anybody."
for voice in slt rms kal16 awb; do
    flite -voice $voice -t "$crowd" -o "$work/$voice.wav"
    sox -D "$work/$voice.wav" -r 16000 -c 1 "$work/b-$voice.wav" gain -n -6
done
sox -D -m "$work/b-slt.wav" "$work/b-rms.wav" "$work/b-kal16.wav" "$work/b-awb.wav" -b 16 \
    "$out/babble.flac" gain -n -3 trim 0.3 5.5
python3 tools/replay_sounds.py "$work"
for sound in cough-1 cough-2 cough-3 click knock; do
    sox -D "$work/$sound.wav" -b 16 "$out/$sound.flac"
done
