#!/bin/bash
# tests/install.sh - what is installed, in a scratch root and as a Debian package: programs find
# their files, units are sound and closed, pages and completion work.
#
#   tests/install.sh BUILD     a build folder with parley and parleyd
#
# Prints one line for each thing that is wrong; exit status 77 when a tool is missing.
set -u
build=$1
root=$(mktemp -d) || exit 1
trap 'rm -rf "$root"' EXIT
failed=0

wrong() {
    echo "install: $*"
    failed=1
}

need() {
    command -v "$1" >/dev/null && return
    echo "skip: $1 is not installed"
    exit 77
}

need systemd-analyze
need dpkg-deb

DESTDIR=$root cmake --install "$build" >"$root/log" 2>&1 || {
    cat "$root/log"
    exit 1
}
bin=$(cd "$root" && find . -name parleyd -type f -path '*/bin/*' | cut -c2-)
bin=$root$(dirname "$bin")
share=$(dirname "$bin")/share
conf=$(find "$root" -name parley.conf -path '*/etc/*')
unit=$(find "$root" -name parleyd.service)

# Programs.
"$bin/parleyd" --check --config "$conf" || wrong "the configuration is not taken"
"$bin/parleyd" --defaults | cmp -s - "$conf" || wrong "the configuration is not the default one"
for told in $(sed -n 's/.*`parley \([a-z]*\) \(--[a-z-]*\)`.*/\1=\2/p' "$conf"); do
    "$bin/parley" "${told%=*}" --help | grep -q -- "^ *${told#*=} " ||
        wrong "the configuration tells of parley ${told%=*} ${told#*=}, which does not exist"
done
mkdir "$root/store"
"$bin/parley" model --store "$root/store" use parley-mini 2>/dev/null ||
    wrong "the small model is not found"
[ "$(readlink "$root/store/current")" = "$share/parley/parley-mini" ] ||
    wrong "the small model is found in $(readlink "$root/store/current")"
"$bin/parley" model --store "$root/store" verify 2>/dev/null ||
    wrong "the small model's sums differ"
"$bin/parley" inspect "$root/store/current" >/dev/null || wrong "the small model is not whole"

# Units: no complaint, and closed. The programs stand where the unit names them only after a real
# installation.
mkdir "$root/units"
sed "s:=/.*/parleyd :=$bin/parleyd :" "$unit" >"$root/units/parleyd.service"
cp "$(dirname "$unit")/parleyd.socket" "$root/units"
said=$(systemd-analyze verify "$root/units/parleyd.service" "$root/units/parleyd.socket" 2>&1 |
    grep -F "$root/units" | grep -v "man:")
[ -z "$said" ] || wrong "systemd-analyze verify: $said"

exposure() { # of parleyd.service and what stands behind it, at most so much
    systemd-analyze security --offline=true --threshold="$(echo "$1" | tr -d .)" \
        "$root/units/$2" >"$root/log" 2>&1 || wrong "$2: $(tail -n 1 "$root/log"), bar $1"
    tail -n 1 "$root/log" | sed 's/^[^A-Za-z]*//'
}

exposure 1.0 parleyd.service
cat "$root/units/parleyd.service" "$share/parley/gpu.conf" >"$root/units/gpu.service"
exposure 1.5 gpu.service

# Completion.
complete_words() {
    PATH=$bin:$PATH bash -c '. "$0"; COMP_WORDS=("$@" ""); COMP_CWORD=$#; _parley
        echo "${COMPREPLY[*]}"' "$share/bash-completion/completions/parley" "$@"
}
[[ " $(complete_words parley) " == *" ask "*" model "* ]] || wrong "no completion of commands"
[[ " $(complete_words parley ctl) " == *" status "*" log-level "* ]] || wrong "none of ctl"
[[ " $(complete_words parley ask) " == *" --model "* ]] || wrong "none of options"

# Every command of the control protocol has its place in the manual.
page=$(find "$root" -name parley-control.7.gz)
for command in $("$bin/parley" ctl --help | sed -n 's/^  \([a-z-]*\) .*/\1/p' | grep -v '^--'); do
    zcat "$page" | sed 's/\\-/-/g' | grep -qE "fB$command(.fR|$)|^\.B $command(.fR|$)" ||
        wrong "parley-control(7) does not tell of $command"
done

# The package.
(cd "$build" && cpack -G DEB -B "$root/deb") >"$root/log" 2>&1 || wrong "$(tail -n 3 "$root/log")"
deb=$(echo "$root"/deb/parley_*.deb)
mkdir "$root/debroot"
dpkg-deb -x "$deb" "$root/debroot" || wrong "the package does not unpack"
dpkg-deb -e "$deb" "$root/debroot/DEBIAN"
for file in $(cd "$root" && find usr etc -type f -o -type l); do
    [ -e "$root/debroot/$file" ] || wrong "$file is installed, but not in the package"
done
grep -q "^/.*/parley.conf$" "$root/debroot/DEBIAN/conffiles" || wrong "no conffile"
grep -q "^Depends:.*libsystemd0" "$root/debroot/DEBIAN/control" || wrong "no dependencies"
for script in postinst prerm postrm; do
    sh -n "$root/debroot/DEBIAN/$script" || wrong "$script"
done
# An upgrade starts the service again, but does not wait until it is ready.
mkdir "$root/stubs"
ln -s /bin/true "$root/stubs/systemd-sysusers"
ln -s /bin/true "$root/stubs/systemd-tmpfiles"
printf '#!/bin/sh\necho "$*" >>"%s"\n' "$root/asked" >"$root/stubs/systemctl"
chmod +x "$root/stubs/systemctl"
sed "s:/run/systemd/system:$root:" "$root/debroot/DEBIAN/postinst" >"$root/postinst"
PATH=$root/stubs:$PATH sh "$root/postinst" configure 0.0.1 || wrong "postinst fails"
grep -q "restart.* parleyd.service" "$root/asked" || wrong "an upgrade does not restart the service"
! grep "start" "$root/asked" | grep -qv -- "--no-block" || wrong "an upgrade waits for the service"
if command -v lintian >/dev/null; then
    said=$(lintian "$deb" 2>/dev/null | grep '^E:')
    [ -z "$said" ] || wrong "lintian: $said"
fi
exit $failed
