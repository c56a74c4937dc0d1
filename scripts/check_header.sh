#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fails when include/limestone_core.h is not what scripts/generate_header.sh would write.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo test --locked --quiet --test c_header
