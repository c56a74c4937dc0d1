// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file restore_progress.h
 * How far a restore has come (public API, section 10.3).
 */

#include <cstddef>
#include <cstdint>

#include <limestone/status.h>

namespace limestone::internal {
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

class datastore;

/**
 * How far a restore has come, at the moment of the call to `datastore::restore_status()`. The original declares this
 * class and gives it no meaning; the accessors are an addition.
 */
class restore_progress {
public:
    /// Phase of the restore. The spelling of the first one is part of the interface.
    enum class status_kind : std::int64_t {
        /// No restore was begun, or the backup is being checked and copied. The data location has its old content.
        prepareing = 0,
        /// The content of the data location is being replaced. From here on only the new content counts, even after a
        /// crash.
        running = 1,
        /// The new content is in place.
        completed = 2,
        /// Replacing the content failed. The next construction of a datastore completes it.
        failed = -1,
        /// The restore was given up before anything was changed. The data location has its old content.
        canceled = -2,
    };

    restore_progress() = delete;

    /// The phase.
    [[nodiscard]] status_kind kind() const noexcept { return kind_; }

    /// Files that were copied so far.
    [[nodiscard]] std::size_t files_done() const noexcept { return files_done_; }

    /// Files of the backup; 0 until it has been checked.
    [[nodiscard]] std::size_t files_total() const noexcept { return files_total_; }

    /// Bytes that were copied so far.
    [[nodiscard]] std::size_t bytes_done() const noexcept { return bytes_done_; }

private:
    status_kind kind_;
    std::size_t files_done_;
    std::size_t files_total_;
    std::size_t bytes_done_;
    char reserved_[24]{};

    restore_progress(status_kind kind, std::size_t files_done, std::size_t files_total, std::size_t bytes_done) noexcept
        : kind_(kind), files_done_(files_done), files_total_(files_total), bytes_done_(bytes_done) {}

    friend class datastore;
    friend struct internal::layout_check;
};

}  // namespace limestone::api
