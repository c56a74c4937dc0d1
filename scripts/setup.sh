# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by the other scripts: goes to the top of the repository, and offers `set_up` (installs what is missing) and
# `build_release`. Works as root, as a user who may use sudo, and under sudo.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

readonly packages=(
    build-essential cmake ninja-build pkg-config libboost-filesystem-dev libgoogle-glog-dev libgtest-dev clang-format
    strace
)

say() { printf '== %s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Under sudo everything built would belong to root, and the next run without sudo would fail on it.
give_back() {
    local owner
    owner=$(stat -c %u .)
    if [[ $EUID -eq 0 && $owner -ne 0 ]]; then
        for directory in build target; do
            [[ ! -d $directory ]] || chown -R "$(stat -c %u:%g .)" "$directory"
        done
    fi
}
trap give_back EXIT

as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root or sudo: $*"
    fi
}

package_is_installed() {
    [[ $(dpkg-query -W -f='${Status}' "$1" 2>/dev/null) == 'install ok installed' ]]
}

install_now() {
    as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
        --no-install-recommends "$@"
}

install_packages() {
    if ! command -v apt-get >/dev/null; then
        say "no apt-get here; expecting the equivalents of: ${packages[*]}"
        return
    fi
    local missing=() package
    for package in "${packages[@]}"; do
        package_is_installed "$package" || missing+=("$package")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    say "installing ${missing[*]}"
    install_now "${missing[@]}"
}

# sudo resets PATH and HOME, so Rust may be there without being found: look where rustup puts it.
find_rust() {
    command -v cargo >/dev/null && command -v rustc >/dev/null && return
    local home homes=("${HOME:-/root}")
    if [[ -n ${SUDO_USER:-} ]]; then
        homes+=("$(getent passwd "$SUDO_USER" | cut -d: -f6)")
    fi
    for home in "${homes[@]}"; do
        if [[ -x $home/.cargo/bin/cargo ]]; then
            export PATH="$home/.cargo/bin:$PATH"
            # The toolchain is theirs; what cargo downloads goes to our own home.
            [[ ! -d $home/.rustup ]] || export RUSTUP_HOME="${RUSTUP_HOME:-$home/.rustup}"
            return
        fi
    done
}

check_rust() {
    find_rust
    local needed found
    needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if ! found=$(rustc --version 2>/dev/null) || ! cargo --version >/dev/null 2>&1; then
        fail "Rust $needed or newer is needed (rustc and cargo), none was found. Install it with rustup."
    fi
    found=$(cut -d' ' -f2 <<<"$found")
    if [[ $(printf '%s\n%s\n' "$needed" "${found%%-*}" | sort -V | head -n 1) != "$needed" ]]; then
        fail "Rust $needed or newer is needed, found $found. With rustup: rustup update stable"
    fi
}

set_up() {
    install_packages
    check_rust
}

# Configures and builds in build/; further arguments go to the configuration.
build_release() {
    say "building"
    # The cargo found now, not one of an earlier run: mixed with another rustc it would not work.
    cmake -B build -DCMAKE_BUILD_TYPE=Release -DCARGO_EXECUTABLE="$(command -v cargo)" "$@"
    cmake --build build --parallel "$(nproc)"
}
