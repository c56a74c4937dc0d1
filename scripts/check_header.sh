#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fails when include/limestone_core.h is not what scripts/generate_header.sh would write.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mkdir -p target
readonly fresh=target/limestone_core.h
scripts/generate_header.sh "$fresh"
if ! diff -u include/limestone_core.h "$fresh"; then
    echo 'error: include/limestone_core.h does not match the sources: run scripts/generate_header.sh' >&2
    exit 1
fi
echo 'include/limestone_core.h matches the sources'
