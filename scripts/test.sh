#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs all tests: those of the core with cargo, those of the C++ and C interfaces with ctest.
set -euo pipefail
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

set_up
status=0
build_release -DBUILD_TESTS=ON
# One of the tests cuts the power of the mini engine.
export LIMESTONE_MINI_ENGINE=$PWD/build/examples/mini_engine/mini_engine
unset LIMESTONE_COMMIT
# Most of those that take long wait for something.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}
say "cargo test"
cargo test --locked --no-fail-fast || status=1
say "ctest"
ctest --test-dir build --output-on-failure --parallel "$(nproc)" || status=1

# All tests above that commit as the environment says did so with a journal. The others commit in both ways themselves.
readonly as_told=(
    cli crash_images golden interop one_verdict properties random_damage recovery_table replication_faults
    replication_native replication_upstream tgbackup tgreplica
)
say "the same with direct commits"
export LIMESTONE_COMMIT=direct
cargo test --locked --no-fail-fast "${as_told[@]/#/--test=}" || status=1
ctest --test-dir build --output-on-failure --parallel "$(nproc)" --tests-regex '^(c|cpp)\.' || status=1
[[ $status -eq 0 ]] || fail "some tests failed"
say "all tests passed"
