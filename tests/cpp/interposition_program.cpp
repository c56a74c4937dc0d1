// SPDX-License-Identifier: Apache-2.0
// Links the double before the library: the double sees exactly the calls made here, and the library still does its job.
#include <cstdio>

#include "interposing_double.h"
#include "test_support.h"

int main() {
    using namespace limestone::testing;
    scratch_directory scratch;
    {
        limestone::api::datastore object(settings(scratch.location()));
        auto& channel = object.create_channel();
        object.ready();
        object.switch_epoch(1);
        channel.begin_session();
        channel.add_entry(1, "a", "1", {1, 0});
        channel.add_entry(1, "b", "2", {1, 0}, {});
        channel.add_entry(1, "c", "3", {1, 0}, {7});
        channel.end_session();
        object.switch_available_boundary_version({1, 0});
        object.switch_epoch(2);
    }
    if (interposed.add_entry != 1 || interposed.add_entry_with_blobs != 2 ||
        interposed.switch_available_boundary_version != 1) {
        std::fprintf(stderr, "expected 1, 2 and 1 calls, the double saw %d, %d and %d\n", interposed.add_entry,
                     interposed.add_entry_with_blobs, interposed.switch_available_boundary_version);
        return 1;
    }
    auto found = recover_entries(scratch.location());
    if (found != std::vector<entry>{{1, "a", "1"}, {1, "b", "2"}, {1, "c", "3"}}) {
        std::fprintf(stderr, "expected 3 entries, found %zu\n", found.size());
        return 1;
    }
    return 0;
}
