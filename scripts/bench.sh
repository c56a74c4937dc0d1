#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Measures the speed ratios against their floor programs, prints one table and writes target/bench.json.
# Usage: scripts/bench.sh [--quick] [--report-only] [--only <row>[,<row>...]], see benches/README.md.
set -euo pipefail
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

set_up
build_release -DBUILD_TESTS=OFF -DBUILD_BENCHMARKS=ON
# The library reports each start at INFO; that belongs into no table.
export GLOG_minloglevel=${GLOG_minloglevel:-1}
mkdir -p target
build/benches/limestone_bench all --work-dir target/bench --json target/bench.json "$@"
