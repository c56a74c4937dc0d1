// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file restore_progress.h
 * How far a restore has come (public API, section 10.3). No object of this class can be created.
 */

#include <cstdint>

#include <limestone/status.h>

namespace limestone::internal {
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

class datastore;

/// How far a restore has come; declared for source compatibility only.
class restore_progress {
public:
    /// Phase of the restore. The spelling of the first one is part of the interface.
    enum class status_kind : std::int64_t {
        prepareing = 0,
        running = 1,
        completed = 2,
        failed = -1,
        canceled = -2,
    };

    restore_progress() = delete;

private:
    status_kind kind_;
    char reserved_[48];

    friend class datastore;
    friend struct internal::layout_check;
};

}  // namespace limestone::api
