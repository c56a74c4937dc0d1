// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file log_channel.h
 * One stream of log records (public API, section 6).
 */

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <boost/filesystem.hpp>

#include <limestone/api/blob_id_type.h>
#include <limestone/api/storage_id_type.h>
#include <limestone/api/write_version_type.h>
#include <limestone/status.h>

namespace limestone::internal {
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

class datastore;
class rotation_result;
class rotation_task;
class log_channel_impl;

/**
 * One stream of log records. `datastore::create_channel()` makes it, and it lives as long as the datastore.
 *
 * Records are written in sessions: `begin_session()`, any number of records, `end_session()`. One channel is used by
 * one thread at a time but may change threads at any point; different channels are independent. A failed write or sync,
 * and a write outside a session, end the process (section 2.3).
 */
class log_channel {
public:
    /**
     * Opens a session in the current epoch, that is the value of the latest `datastore::switch_epoch()`.
     *
     * Atomic with respect to a racing `switch_epoch()`: the epoch is held back by this session, or the session belongs
     * to the newer epoch.
     */
    void begin_session();

    /**
     * Ends the session: its records are synced to disk when this returns. They count once the epoch is durable, which
     * the persistent callback reports; it may be called from here, on this thread.
     */
    void end_session();

    /**
     * Ends the session with nothing written; the original ends the process here.
     *
     * No start sees its records, and its epoch completes as if the session had never begun; the persistent callback may
     * be called from here, on this thread. Other sessions of the channel stay. What has reached the file is cut off and
     * the cut is synced when this returns. `finished_epoch_id()` stays as it is. BLOBs that the records refer to keep
     * their mark and stay until the next start.
     * @param status_code why; for the log line only
     * @param message why; for the log line only
     * @note without an open session it logs an error and does nothing
     */
    void abort_session(status status_code, const std::string& message) noexcept;

    /**
     * Writes an insert or update of one key.
     * @param storage_id the storage of the key
     * @param key any bytes, at most 2^32-1
     * @param value any bytes, at most 2^32-1
     * @param write_version the version; at recovery the greatest version of a key wins
     */
    void add_entry(storage_id_type storage_id, std::string_view key, std::string_view value,
                   write_version_type write_version);

    /**
     * Writes an insert or update that refers to BLOBs.
     * @param large_objects ids of the BLOBs, which count as persistent from this call on; empty means none
     */
    void add_entry(storage_id_type storage_id, std::string_view key, std::string_view value,
                   write_version_type write_version, const std::vector<blob_id_type>& large_objects);

    /// Writes the removal of one key at `write_version`.
    void remove_entry(storage_id_type storage_id, std::string_view key, write_version_type write_version);

    /// Writes that a storage was created; recovery ignores it.
    void add_storage(storage_id_type storage_id, write_version_type write_version);

    /// Writes that a storage was dropped: recovery hides its entries with a version strictly below `write_version`.
    void remove_storage(storage_id_type storage_id, write_version_type write_version);

    /// Writes that a storage was emptied: recovery hides its entries with a version strictly below `write_version`.
    void truncate_storage(storage_id_type storage_id, write_version_type write_version);

    /// Path of the file of this channel, `<data location>/pwal_NNNN`. The file exists from the first session on.
    [[nodiscard]] boost::filesystem::path file_path() const noexcept;

    /// Epoch of the open session, `UINT64_MAX` when there is none. Callable from any thread.
    [[nodiscard]] auto current_epoch_id() const noexcept { return current_epoch_id_.load(); }

    /// Epoch of the session that ended last, 0 when there was none. Callable from any thread.
    [[nodiscard]] auto finished_epoch_id() const noexcept { return finished_epoch_id_.load(); }

    /// The library's own part of the channel.
    [[nodiscard]] log_channel_impl* get_impl() const noexcept;

protected:
    /**
     * Used by the library only.
     * @param location the data location
     * @param id number of the channel
     * @param envelope the datastore that owns the channel
     */
    log_channel(boost::filesystem::path location, std::size_t id, datastore& envelope) noexcept;

    friend class datastore;
    friend class rotation_task;
    friend struct internal::layout_check;

private:
    // The offsets of the two atomics and the size are part of the binary interface (section 12.4).
    std::unique_ptr<log_channel_impl> impl_;
    boost::filesystem::path location_;
    boost::filesystem::path file_name_;
    std::size_t id_;
    datastore& envelope_;
    char reserved_[8]{};
    std::atomic_uint64_t current_epoch_id_{std::numeric_limits<std::uint64_t>::max()};
    std::atomic_uint64_t finished_epoch_id_{0};
    char reserved_tail_[8]{};
};

}  // namespace limestone::api
