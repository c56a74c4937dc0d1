#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the packages of a build directory, installs them in a fresh root over older ones, uses what is there, and purges
# them: nothing stays. Their dependencies are those of this machine. Needs root, or says that it did not run.
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

# An older version of each, with a file that is not there any more and settings of the user.
for package in "${packages[@]}"; do
    name=$(dpkg-deb --field "$package" Package)
    dpkg-deb --raw-extract "$package" "$work/older"
    sed -i 's/^Version: .*/Version: 0.0.1/' "$work/older/DEBIAN/control"
    mkdir -p "$work/older/usr/share/limestone"
    echo older >"$work/older/usr/share/limestone/$name-of-older"
    dpkg-deb --root-owner-group --build "$work/older" "$work/older_$name.deb" >/dev/null
    rm -r "$work/older"
done
on_root --install "$work"/older_*.deb
mkdir -p "$root/etc/limestone"
echo KEEP=3 >"$root/etc/limestone/db.backup"
on_root --install "${packages[@]}"
for package in "${packages[@]}"; do
    name=$(dpkg-deb --field "$package" Package)
    version=$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f='${Version}' "$name")
    [[ $version == "$(dpkg-deb --field "$package" Version)" ]] || fail "$name is still $version"
    [[ ! -e $root/usr/share/limestone/$name-of-older ]] || fail "an upgrade of $name leaves what only the older one had"
done
[[ $(<"$root/etc/limestone/db.backup") == KEEP=3 ]] || fail "an upgrade changed settings"
rm "$root/etc/limestone/db.backup"
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
    # The programs are in the root of the test; a timer is looked at with its service.
    mkdir "$work/units"
    for unit in "$root"/usr/lib/systemd/system/*@.*; do
        name=${unit##*/}
        sed "s|/usr/bin/tg|$root&|" "$unit" >"$work/units/${name/@/@test}"
    done
    [[ $(find "$work/units" -name '*.service' | wc -l) -eq 3 ]] || fail "expected three services: $(ls "$work/units")"
    [[ $(find "$work/units" -name '*.timer' | wc -l) -eq 2 ]] || fail "expected two timers: $(ls "$work/units")"
    SYSTEMD_UNIT_PATH=$work/units: systemd-analyze verify --man=no "$work"/units/*
else
    echo "NOT RUN: there is no systemd-analyze on this machine"
fi

on_root --purge liblimestone-dev limestone-tools liblimestone
(cd "$root" && find . -path ./var/lib/dpkg -prune -o -print | sort) >"$work/after"
left=$(comm -13 "$work/before" "$work/after")
[[ -z $left ]] || fail "a purge leaves: $left"
echo "installed, used and purged: ${packages[*]##*/}"
