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

struct limestone_backup;

namespace limestone::internal {
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

class datastore_impl;

/**
 * A plain backup in progress. The datastore owns it; the next `datastore::begin_backup()` ends and replaces it.
 *
 * While a backup is in progress the library deletes and replaces none of the listed files; live log files and the epoch
 * file grow. Copy the files in the order of the list. The copy is consistent when nothing is written until all are
 * copied; use the detailed form beside running transactions. End this backup before a detailed one begins, which gives
 * the listed log files other names.
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

    /**
     * The files to copy: paths built from the configured data location, ascending, without duplicates. All files of the
     * location, and every BLOB that is registered, whether an entry refers to it or not; the release of its pool does
     * not delete a listed one. A BLOB that is just being written is not listed.
     */
    std::vector<boost::filesystem::path>& files() noexcept;

    /// Tells that all files were copied. Calls after the first one do nothing.
    void notify_end_backup() noexcept;

private:
    std::vector<boost::filesystem::path> files_;
    limestone_backup* core_;
    std::atomic<bool> ended_{false};

    backup(std::vector<boost::filesystem::path> files, limestone_backup* core) noexcept;

    friend class datastore;
    friend struct internal::layout_check;
};

}  // namespace limestone::api
