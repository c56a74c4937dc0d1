// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file backup_detail.h
 * The detailed form of a backup: files with the role each of them has (public API, section 8.2).
 */

#include <atomic>
#include <cstddef>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/filesystem.hpp>

#include <limestone/api/epoch_id_type.h>

struct limestone_backup;

namespace limestone::internal {
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

class datastore_impl;
class datastore;

/**
 * A detailed backup in progress, with a description of each file.
 *
 * The files are complete and do not change any more, also while transactions run: a directory with copies of them, or
 * the result of restoring them, recovers to exactly what sessions of epochs up to `log_finish()` wrote. While a backup
 * is in progress the library deletes and replaces none of them. May outlive the datastore.
 */
class backup_detail {
public:
    /// Ends the backup if `notify_end_backup()` was not called.
    ~backup_detail() noexcept { notify_end_backup(); }  // inline: compiled callers bring their own (section 12.2)

    backup_detail(backup_detail const&) = delete;
    backup_detail& operator=(backup_detail const&) = delete;
    backup_detail(backup_detail&&) = delete;
    backup_detail& operator=(backup_detail&&) = delete;

    /// One file of the backup.
    class entry {
    public:
        entry() noexcept = default;
        ~entry() = default;
        entry(entry const&) = default;
        entry& operator=(entry const&) = default;
        entry(entry&&) noexcept = default;
        entry& operator=(entry&&) noexcept = default;

        /// Describes one file; see the accessors.
        entry(boost::filesystem::path source_path, boost::filesystem::path destination_path, bool is_mutable,
              bool is_detached) noexcept
            : source_path_(std::move(source_path)),
              destination_path_(std::move(destination_path)),
              is_mutable_(is_mutable),
              is_detached_(is_detached) {}

        /// Full path of the file to copy.
        [[nodiscard]] boost::filesystem::path source_path() const noexcept { return source_path_; }

        /// Relative path of the copy within the backup.
        [[nodiscard]] boost::filesystem::path destination_path() const noexcept { return destination_path_; }

        /// Whether the file may still change while it is copied.
        [[nodiscard]] bool is_mutable() const noexcept { return is_mutable_; }

        /// Whether the file is no longer needed by the datastore.
        [[nodiscard]] bool is_detached() const noexcept { return is_detached_; }

    private:
        boost::filesystem::path source_path_{};
        boost::filesystem::path destination_path_{};
        bool is_mutable_{};
        bool is_detached_{};

        friend struct internal::layout_check;
    };

    /// Name of the configuration, constant `"0"`.
    std::string_view configuration_id() noexcept { return configuration_id_; }

    /// First epoch of the log in this backup, constant 0.
    [[nodiscard]] epoch_id_type log_start() const noexcept { return 0; }

    /**
     * Last epoch of the log in this backup: a durable one, and not below the last one that was reported as durable
     * before the backup began. Everything up to it is in the backup, and nothing beyond it counts.
     */
    [[nodiscard]] epoch_id_type log_finish() const noexcept;

    /// Last epoch of the database image in this backup; there never is one.
    [[nodiscard]] std::optional<epoch_id_type> image_finish() const noexcept { return std::nullopt; }

    /// Tells that all files were copied. Calls after the first one do nothing.
    void notify_end_backup() noexcept;

    /// The files to copy. Of the BLOBs, all that are registered; see `backup::files()`.
    const std::vector<backup_detail::entry>& entries() noexcept { return entries_; }

    /// Always `true`: the list is complete from the beginning.
    [[nodiscard]] bool is_ready() const;

private:
    // Compiled callers read these members directly (section 12.2).
    std::string_view configuration_id_{"0"};
    std::size_t log_finish_;
    std::vector<entry> entries_;
    limestone_backup* core_;
    std::atomic<bool> ended_{false};

    backup_detail(std::vector<entry> entries, std::size_t log_finish, limestone_backup* core) noexcept;

    friend class datastore;
    friend struct internal::layout_check;
};

/// Kind of a detailed backup; both kinds are made alike.
enum class backup_type {
    /// A backup of the database.
    standard,
    /// A backup of the transaction log.
    transaction,
};

}  // namespace limestone::api
