#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes a replica's directory a primary's: calls `tgreplica promote`, which tells a tgreplica that serves the directory,
# too. Then start the engine on the directory, and never the old primary again without making it a replica first.
# Usage: takeover.sh [--force [--reason TEXT]] <logdir>
# The program is taken from $TGREPLICA, or else from beside this script, the build, or PATH. `--stop` is accepted for
# older callers and means nothing any more.
# Exit codes: 0 promoted; 1 wrong use; 2 the directory is refused; 3 something else uses it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tgreplica=${TGREPLICA:-}
for candidate in "$here/tgreplica" "$here/../target/release/tgreplica" "$here/../target/debug/tgreplica"; do
    [[ -z $tgreplica && -x $candidate ]] && tgreplica=$candidate
done
arguments=()
for argument; do
    [[ $argument == --stop ]] || arguments+=("$argument")
done
exec "${tgreplica:-tgreplica}" promote "${arguments[@]}"
