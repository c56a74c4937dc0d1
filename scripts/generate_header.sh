#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writes include/limestone_core.h, the C interface, from the sources of the core.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
LIMESTONE_UPDATE_HEADER=1 cargo test --locked --quiet --test c_header
