// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file backup.h
 * The plain form of a backup: a list of files to copy (public API, section 8.1).
 */

#include <atomic>
#include <cstddef>
#include <set>
#include <vector>

#include <boost/filesystem.hpp>

#include <limestone/api/log_channel.h>

namespace limestone::internal {
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

class datastore_impl;

/**
 * A backup in progress. The datastore owns it; the next `datastore::begin_backup()` replaces it.
 *
 * While a backup is in progress the library deletes no BLOB files.
 */
class backup {
public:
    /// Ends the backup if `notify_end_backup()` was not called.
    ~backup() noexcept;

    backup(backup const&) = delete;
    backup& operator=(backup const&) = delete;
    backup(backup&&) noexcept = delete;
    backup& operator=(backup&&) noexcept = delete;

    /// Always `true`: the list is complete from the beginning.
    [[nodiscard]] bool is_ready() const noexcept;

    /// Always `true` and never waits; `duration` is ignored.
    [[nodiscard]] bool wait_for_ready(std::size_t duration) const noexcept;

    /// The files to copy: paths built from the configured data location, ascending, without duplicates.
    std::vector<boost::filesystem::path>& files() noexcept;

    /// Tells that all files were copied. Calls after the first one do nothing.
    void notify_end_backup() noexcept;

private:
    std::vector<boost::filesystem::path> files_;
    datastore_impl& datastore_impl_;
    std::atomic<bool> ended_{false};

    backup(std::vector<boost::filesystem::path> files, datastore_impl& impl) noexcept;

    friend class datastore;
    friend struct internal::layout_check;
};

}  // namespace limestone::api
