#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the packages of a build directory, installs them in a fresh root, uses what is there, and purges them: nothing
# stays. Their dependencies are those of this machine. Needs root, or says that it did not run.
# Usage: check_packages.sh <build directory> <sources>
set -euo pipefail
build=$1
sources=$2
if [[ $EUID -ne 0 ]]; then
    echo "NOT RUN: packages are installed by root only"
    exit 0
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/limestone-packages.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root

fail() {
    printf 'check_packages: %s\n' "$*" >&2
    exit 1
}

(cd "$build" && cpack -G DEB -B "$work/packages")
packages=("$work"/packages/*.deb)
[[ ${#packages[@]} -eq 3 ]] || fail "expected three packages, found ${packages[*]}"
if command -v lintian >/dev/null; then
    # Who makes packages for others names himself with LIMESTONE_PACKAGE_CONTACT. The tool leaves temporary files.
    TMPDIR=$work lintian --allow-root --fail-on error \
        --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog "${packages[@]}"
else
    echo "NOT RUN: there is no lintian on this machine"
fi

on_root() {
    dpkg --root="$root" --force-depends --force-script-chrootless --log=/dev/null "$@"
}
mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" "$root/var/lib/dpkg/triggers" "$root/etc"
: >"$root/var/lib/dpkg/status"
(cd "$root" && find . | sort) >"$work/before"
users=$(getent passwd)
on_root --install "${packages[@]}"
[[ $(getent passwd) == "$users" ]] || fail "installing into a root elsewhere made a user here"

# In use.
export LD_LIBRARY_PATH=$root/usr/lib PATH=$root/usr/bin:$PATH
for program in tgreplica tglogutil tgbackup; do
    "$program" --version | grep -Eq "^$program [0-9]+\.[0-9]+\.[0-9]+" || fail "$program says no version"
    [[ -z $(nm "$root/usr/bin/$program" 2>/dev/null) ]] || fail "$program is not stripped"
done
for page in tgreplica tglogutil tglogutil-repair tgbackup tgbackup-restore tgreplica_takeover.sh tgcmpct_logs.sh \
    tgdel_logs.sh; do
    gzip -dc "$root/usr/share/man/man1/$page.1.gz" | grep -q '^\.TH' || fail "no man page $page"
done
export PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_PATH=$root/usr/lib/pkgconfig:$root/usr/share/pkgconfig
# shellcheck disable=SC2046
cc "$sources/tests/consumer/core.c" -o "$work/core" -I"$root/usr/include/limestone" -L"$root/usr/lib" -llimestone_core
"$work/core"
mkdir "$work/data"
if tgreplica status --json "$work/data" >"$work/status"; then
    fail "an empty directory is served by nobody"
fi
grep -q '"state":"stopped"' "$work/status" || fail "no status: $(cat "$work/status")"
if command -v systemd-analyze >/dev/null; then
    # Its program is in the root of the test.
    sed "s|/usr/bin/tgreplica|$root&|" "$root/usr/lib/systemd/system/tgreplica@.service" >"$work/tgreplica@test.service"
    systemd-analyze verify --man=no "$work/tgreplica@test.service"
else
    echo "NOT RUN: there is no systemd-analyze on this machine"
fi

on_root --purge liblimestone-dev limestone-tools liblimestone
(cd "$root" && find . -path ./var/lib/dpkg -prune -o -print | sort) >"$work/after"
left=$(comm -13 "$work/before" "$work/after")
[[ -z $left ]] || fail "a purge leaves: $left"
echo "installed, used and purged: ${packages[*]##*/}"
