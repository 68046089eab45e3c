#!/bin/bash
# tools/setup.sh - installs what Parley needs on Debian 12 and Ubuntu 24.04.
#
#   tools/setup.sh build     compiler and libraries
#   tools/setup.sh check     the same as deb, and clang, clang-format, Python for the checks
#   tools/setup.sh arm64     the same as build, and the cross compiler and qemu
#   tools/setup.sh deb       the same as build, and what makes a Debian package
#   tools/setup.sh boot      the same as deb, and what boots a guest
#
# Says nothing when nothing is missing. Needs root or sudo only when something is. PARLEY_SETUP=no
# forbids installing: what is missing is then named and the exit status is 1.
set -u

build="gcc g++ libc6-dev make cmake pkg-config libjansson-dev libutf8proc-dev libpcre2-dev
       libsndfile1-dev libsoxr-dev libcmocka-dev libasound2-dev portaudio19-dev
       libwebrtc-audio-processing-dev libinih-dev libsystemd-dev libevdev-dev
       libarchive-dev nettle-dev"
check="clang clang-format-14 strace python3 python3-venv python3-pip pulseaudio pulseaudio-utils
       libasound2-plugins"
deb="dpkg-dev file gzip"
boot="debootstrap qemu-system-x86 e2fsprogs python3"
arm64="gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"

stop() {
    echo "setup: $*" >&2
    exit 1
}

ID=unknown VERSION_ID=unknown
[ -r /etc/os-release ] && . /etc/os-release
# The run-time library of clang's sanitizers and fuzzer carries clang's version in its name.
case "$ID $VERSION_ID" in
"debian 12") check="$check libclang-rt-14-dev" ;;
"ubuntu 24.04") check="$check libclang-rt-18-dev" ;;
*) check="$check libclang-rt-dev" ;;
esac

case "${1:-build}" in
build) wanted=$build ;;
check) wanted="$build $deb $check" ;;
arm64) wanted="$build $arm64" ;;
deb) wanted="$build $deb" ;;
boot) wanted="$build $deb $boot" ;;
*) stop "unknown set of packages '$1'; there are build, check, arm64, deb and boot" ;;
esac

missing=$wanted
if command -v dpkg-query >/dev/null; then
    present=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' $wanted 2>/dev/null |
        sed -n 's/^installed //p')
    missing=""
    for p in $wanted; do
        case $'\n'"$present"$'\n' in
        *$'\n'"$p"$'\n'*) ;;
        *) missing="$missing $p" ;;
        esac
    done
fi
missing=$(echo $missing)
[ -z "$missing" ] && exit 0

command -v apt-get >/dev/null ||
    stop "this is neither Debian nor Ubuntu; please install what these packages hold: $missing"
[ "${PARLEY_SETUP:-yes}" = no ] && stop "not installed: $missing"
as_root=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null ||
        stop "neither root nor sudo; please have these packages installed: $missing"
    as_root="sudo"
    sudo -n true 2>/dev/null || [ -t 0 ] ||
        stop "sudo asks for a password here; please have these packages installed: $missing"
fi

log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

# Runs apt-get with its whole output in the log and one line per package on the terminal.
apt() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 "$@" 2>&1 |
        tee -a "$log" |
        sed -u -n -e 's/^Get:[0-9]* \([^ ]*\) \([^ ]*\) \([^ ]*\) \([^ ]*\).*/  fetching \4/p' \
            -e 's/^Setting up \([^ ]*\).*/  installed \1/p'
    return "${PIPESTATUS[0]}"
}

echo "setup: installing $missing"
if ! apt update; then
    tail -n 15 "$log" >&2
    echo "setup: the package lists could not be refreshed; trying with the present ones" >&2
fi
if ! apt install --no-install-recommends $missing; then
    tail -n 15 "$log" >&2
    stop "apt-get could not install: $missing"
fi
echo "setup: done"
