// SPDX-License-Identifier: Apache-2.0
#pragma once

/// How often the functions that interposing_double.cpp replaces were called.
struct interposed_calls {
    int add_entry{0};
    int add_entry_with_blobs{0};
    int switch_available_boundary_version{0};
};

extern interposed_calls interposed;
