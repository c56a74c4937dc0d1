#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Asks the running server of a data directory for an online compaction. Without a server the next one to start does it.

usage() {
    echo "usage: $(basename "$0") <dblogdir>"
    exit 1
}

[ $# -eq 1 ] || usage
dir=$1
if [ ! -f "$dir/compaction_catalog" ] || [ ! -d "$dir/ctrl" ]; then
    echo "Error: '$dir' is not a valid dblogdir."
    usage
fi
if touch -- "$dir/ctrl/start_compaction"; then
    echo "Compaction request has been made."
else
    echo "Error: Failed to request compaction."
    exit 1
fi
