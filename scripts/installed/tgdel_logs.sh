#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Deletes the log files whose content a compaction has put into the compacted file: those that the catalog of the data
# directory lists as detached. May be used while a server runs.

usage() {
    echo "usage: $(basename "$0") <dblogdir>"
    exit 1
}

[ $# -eq 1 ] || usage
dir=$1
catalog=$dir/compaction_catalog
if [ ! -f "$catalog" ] || [ ! -d "$dir/ctrl" ]; then
    echo "Error: '$dir' is not a valid dblogdir."
    usage
fi
# A catalog that is not whole says nothing; the server restores it from its backup.
if [ "$(head -n 1 -- "$catalog")" != COMPACTION_CATALOG_HEADER ] ||
    ! grep -qx COMPACTION_CATALOG_FOOTER -- "$catalog"; then
    echo "No files could be deleted."
    exit 0
fi
detached=$(sed -n '/^COMPACTION_CATALOG_FOOTER$/q; s/^DETACHED_PWAL \([^ ]*\).*$/\1/p' -- "$catalog")
# A catalog that a power cut can take back lists files that are needed then.
if ! sync -- "$dir"; then
    echo "Error: cannot sync '$dir'; nothing is deleted."
    exit 1
fi
deleted=$(
    echo "$detached" |
        while read -r name; do
            case $name in
            */* | pwal_0000.compacted*) continue ;;
            pwal_*) ;;
            *) continue ;;
            esac
            if [ -f "$dir/$name" ] && rm -f -- "$dir/$name"; then
                echo "Deleting: $dir/$name"
            fi
        done
)
if [ -n "$deleted" ]; then
    echo "$deleted"
else
    echo "No files could be deleted."
fi
