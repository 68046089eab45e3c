#!/bin/bash
# tools/sysroot.sh - unpacks the arm64 libraries that Parley needs under build-arm64/sysroot.
#
# The host's apt and dpkg are left as they are: a private apt state, which believes that nothing is
# installed, resolves and downloads the arm64 packages, and dpkg-deb unpacks them. Needs no root.
# Nothing happens when the sysroot is complete already.
set -u

packages="libc6-dev libgcc-12-dev libstdc++-12-dev libjansson-dev libutf8proc-dev libpcre2-dev
          libsndfile1-dev libsoxr-dev libcmocka-dev libasound2-dev portaudio19-dev
          libwebrtc-audio-processing-dev libinih-dev libsystemd-dev libevdev-dev libarchive-dev
          nettle-dev"

cd "$(dirname "$0")/.." || exit 1
base=$PWD/build-arm64
root=$base/sysroot
private=$base/apt
ID=debian VERSION_CODENAME=bookworm
[ -r /etc/os-release ] && . /etc/os-release
stamp=$root/.complete
wanted=$(echo $VERSION_CODENAME $packages)
[ -r "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

stop() {
    [ -r "$private/log" ] && tail -n 15 "$private/log" >&2
    echo "sysroot: $*" >&2
    exit 1
}

command -v apt-get >/dev/null || stop "needs apt-get (Debian or Ubuntu)"
rm -rf "$root" "$private"
mkdir -p "$root" "$private/lists/partial" "$private/cache/archives/partial" "$private/etc" || exit 1
: >"$private/status"
sources="-o Dir::Etc=/etc/apt"
if [ "$ID" = ubuntu ]; then # Ubuntu keeps arm64 on a mirror of its own
    key=/usr/share/keyrings/ubuntu-archive-keyring.gpg
    for suite in "$VERSION_CODENAME" "$VERSION_CODENAME-updates" "$VERSION_CODENAME-security"; do
        echo "deb [signed-by=$key] http://ports.ubuntu.com/ubuntu-ports $suite main universe"
    done >"$private/etc/sources.list"
    sources="-o Dir::Etc::sourcelist=$private/etc/sources.list -o Dir::Etc::sourceparts=/dev/null"
fi

apt() {
    apt-get -q -y -o APT::Architecture=arm64 -o APT::Architectures::=arm64 \
        -o APT::Architectures=arm64 $sources -o APT::Sandbox::User="$(id -un)" \
        -o Dir::State="$private" -o Dir::State::lists="$private/lists" \
        -o Dir::State::status="$private/status" -o Dir::Cache="$private/cache" \
        -o Debug::NoLocking=1 -o APT::Update::Post-Invoke= -o DPkg::Post-Invoke= "$@" 2>&1 |
        tee -a "$private/log" |
        sed -u -n 's/^Get:[0-9]* \([^ ]*\) \([^ ]*\) \([^ ]*\) \([^ ]*\).*/  fetching \4/p'
    return "${PIPESTATUS[0]}"
}

echo "sysroot: fetching the arm64 libraries"
apt update || echo "sysroot: some package lists could not be refreshed" >&2
apt install --download-only --no-install-recommends $packages ||
    stop "apt could not fetch the arm64 packages: $(echo $packages)"
n=0
for deb in "$private"/cache/archives/*.deb; do
    dpkg-deb -x "$deb" "$root" || stop "cannot unpack $deb"
    n=$((n + 1))
done

# Absolute links would lead out of the sysroot.
find "$root" -type l -lname '/*' | while read -r link; do
    ln -sfn "$root$(readlink "$link")" "$link"
done
echo "$wanted" >"$stamp"
rm -rf "$private/cache" "$private/lists"
echo "sysroot: $n packages unpacked in build-arm64/sysroot"
