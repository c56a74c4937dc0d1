#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writes include/limestone_core.h, the C interface, from the sources of the core.
# Usage: scripts/generate_header.sh [output file]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Another version may format the header differently, so the check needs exactly this one.
readonly version=0.29.4
cbindgen=$(command -v cbindgen || true)
if [[ -z $cbindgen || $("$cbindgen" --version) != "cbindgen $version" ]]; then
    cbindgen=target/tools/bin/cbindgen
    if [[ ! -x $cbindgen || $("$cbindgen" --version) != "cbindgen $version" ]]; then
        cargo install cbindgen --version "$version" --locked --root target/tools --target-dir target/tools/build
    fi
fi
"$cbindgen" --config cbindgen.toml --output "${1:-include/limestone_core.h}" .
