// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file datastore.h
 * The datastore: a transaction log with recovery (public API, section 5).
 */

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <boost/filesystem.hpp>
#include <boost/filesystem/fstream.hpp>

#include <limestone/api/backup.h>
#include <limestone/api/backup_detail.h>
#include <limestone/api/blob_file.h>
#include <limestone/api/blob_id_type.h>
#include <limestone/api/blob_pool.h>
#include <limestone/api/configuration.h>
#include <limestone/api/cursor.h>
#include <limestone/api/durability.h>
#include <limestone/api/epoch_id_type.h>
#include <limestone/api/epoch_tag.h>
#include <limestone/api/file_set_entry.h>
#include <limestone/api/log_channel.h>
#include <limestone/api/restore_progress.h>
#include <limestone/api/rotation_result.h>
#include <limestone/api/snapshot.h>
#include <limestone/api/storage_id_type.h>
#include <limestone/api/tag_repository.h>
#include <limestone/api/write_version_type.h>
#include <limestone/status.h>

namespace limestone::internal {
class compaction_catalog;
class blob_file_resolver;
class blob_file_garbage_collector;
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

class datastore_impl;
class backup;
class log_channel;

/**
 * A transaction log with recovery, kept in one directory, the data location.
 *
 * Life cycle (section 2.2): construct, `create_channel()` as often as needed, `ready()`, use, `shutdown()`, destroy. An
 * object may be destroyed in every state. A call in the wrong state logs a warning and goes on.
 *
 * Functions marked "guarded" end the process when storage fails (section 2.3): the message is logged as FATAL. All
 * other functions report to the caller. Unless said otherwise, functions may be called from any thread.
 */
class datastore {
    friend class log_channel;
    friend struct internal::layout_check;

public:
    /// An empty object without a data location, for tests; it can only be shut down and destroyed.
    datastore() noexcept;

    /**
     * Opens or creates a data location and takes its lock; reads no log. Guarded.
     * @param conf the settings; only the last component of the data location is created
     * @throws limestone_exception of kind `initialization_failure` when the environment asks for something that this
     *     version cannot do
     */
    explicit datastore(configuration const& conf);

    /// Shuts down if that was not done, and destroys the channels and the backup.
    virtual ~datastore() noexcept;

    datastore(datastore const&) = delete;
    datastore& operator=(datastore const&) = delete;
    datastore(datastore&&) noexcept = delete;
    datastore& operator=(datastore&&) noexcept = delete;

    /// Does nothing: recovery is part of `ready()`.
    void recover() const noexcept;

    /**
     * Replaces the content of the data location by the files that lie directly in the directory `from`; before
     * `ready()` or after `shutdown()`, while no session is open. The lock is kept all the time.
     *
     * Everything is checked before anything is changed, and the new files are copied before the old ones go: a crash or
     * a failure leaves the old content, or the next construction completes the restore (section 10.3:
     * `restore_status()` tells which). Sub-directories and BLOBs of the old content stay; a later start deletes BLOBs
     * that nothing refers to. An old format version is migrated by the next `ready()` or construction.
     * @param keep_backup whether the files in `from` stay; they are deleted in the end otherwise
     * @return `err_broken_data` when `from` holds no usable backup; `err_permission_error` when files cannot be read or
     *     written, for anything in `from` that is not a regular file, for links out of `from`, and after `ready()`. The
     *     reason is logged as ERROR.
     */
    status restore(std::string_view from, bool keep_backup) const noexcept;

    /**
     * Replaces the content of the data location by the listed files, as the other overload does; the backup stays.
     *
     * A relative source lies below `from` and must not lead out of it. A source named like a BLOB (16 hexadecimal
     * digits and `.blob`) goes to that BLOB's place; a destination is a plain file name otherwise. Of several entries
     * with one destination the last counts. One of them must be `limestone-manifest.json`.
     * @return as the other overload, and `err_not_found` for a source that does not exist or is not a regular file
     */
    status restore(std::string_view from, std::vector<file_set_entry>& entries) noexcept;

    /**
     * How far the last `restore()` of this object has come. May be called from another thread while it runs. The
     * original declares this function and does not define it.
     */
    restore_progress restore_status() const noexcept;

    /**
     * Recovers the data location and makes the object operational. To be called once, while no other function except
     * `switch_epoch()` runs. Guarded.
     */
    void ready();

    /// A new snapshot of what recovery found; before `ready()` an empty one.
    std::unique_ptr<snapshot> get_snapshot() const;

    /// The same as `get_snapshot()`, owned together.
    std::shared_ptr<snapshot> shared_snapshot() const;

    /**
     * Creates a log channel; cheap, no file is created before its first session. Guarded.
     * @return a channel that lives as long as the datastore
     */
    log_channel& create_channel();

    /**
     * The last epoch that was completed: 0 before `ready()`, then the last recovered epoch, then the last one reported
     * to the persistent callback. Never waits; also valid after `shutdown()`.
     */
    epoch_id_type last_epoch() const noexcept;

    /**
     * Makes `epoch_id` the current epoch and lets the epochs before it complete that no session holds back: soon after,
     * when they are durable, a thread of the library calls the persistent callback. With `LIMESTONE_COMMIT=direct` in
     * the environment that is done before this returns, on this thread, as in the original. Guarded.
     * @param epoch_id greater than in the previous call; calls must not overlap
     */
    void switch_epoch(epoch_id_type epoch_id);

    /**
     * Sets the function that is told about durable epochs; a later call replaces it.
     *
     * It gets an epoch of which, as of all before it, everything is durable. Epochs increase strictly and may skip. It
     * runs on a thread of the library, or, with `LIMESTONE_COMMIT=direct`, inside `switch_epoch()` or
     * `log_channel::end_session()`; never twice at a time. It must not throw. It may call `last_epoch()` and
     * `remove_persistent_callback()`.
     */
    void add_persistent_callback(std::function<void(epoch_id_type)> callback) noexcept;

    /**
     * Sets the function that is told about each state an epoch reaches; a later call replaces it. An addition to the
     * interface of the original.
     *
     * Besides the function of the other overload, under the same rules, for every `durability` by itself.
     * @param callback callable with `(epoch_id_type, durability)` and not with `(epoch_id_type)` alone
     */
    template <class Callback,
              std::enable_if_t<std::is_invocable_v<Callback&, epoch_id_type, durability> &&
                                   !std::is_constructible_v<std::function<void(epoch_id_type)>, Callback>,
                               int> = 0>
    void add_persistent_callback(Callback&& callback) noexcept {
        add_durability_callback(std::forward<Callback>(callback));
    }

    /**
     * Removes the functions that both overloads of `add_persistent_callback()` set. When it returns, none of them is
     * running or will start, except the one that calls it.
     */
    void remove_persistent_callback() noexcept;

    /**
     * Moves the safe snapshot, up to which all writes are finished, and tells the function that
     * `add_snapshot_callback()` set; the original does nothing here (section 5.9). Cheap; nothing is stored. To be
     * called after `ready()`.
     * @param write_version the new bound; with `inclusive` above without for the same version. A bound below the
     * present one is refused with a logged error, the same one once more changes nothing
     * @param inclusive whether writes of exactly this version are within the safe snapshot, as those below it are
     */
    void switch_safe_snapshot(write_version_type write_version, bool inclusive) const noexcept;

    /**
     * Sets the function that is told about the safe snapshot; a later call replaces it, of whose predecessor a running
     * call may outlast this. The original keeps it and never calls it (section 5.9).
     *
     * It gets the version that was given to `switch_safe_snapshot()`, on the thread that is inside that function, one
     * call at a time. Versions never decrease; one comes twice when it becomes inclusive, and some are left out when
     * the safe snapshot moves while the function runs. No lock is held: it may call any function of the datastore. It
     * must not throw.
     */
    void add_snapshot_callback(std::function<void(write_version_type)> callback) noexcept;

    /**
     * Ends all activity and releases the lock, so that the data location can be opened again at once. May be called in
     * every state, any number of times. Open sessions are not ended and no callback runs.
     * @return a future that is ready
     */
    std::future<void> shutdown() noexcept;

    /**
     * Begins a plain backup, before or after `ready()`; see `backup`. Never waits for an epoch and renames nothing.
     * Guarded.
     * @return the files of the data location that exist now; valid until the next call
     */
    backup& begin_backup();

    /**
     * Begins a detailed backup, after `ready()`, beside running transactions, or after `shutdown()`; see
     * `backup_detail`. Guarded.
     *
     * Waits until everything that sessions have written so far is durable, for which another thread has to switch the
     * epoch, but at most ten seconds: then the backup goes up to the last durable epoch. What has been reported as
     * durable is in the backup in any case. Log files get rotated names; an open session goes on in a new file.
     * @param btype ignored: both kinds are made alike
     * @throws limestone_exception when a `shutdown()` ends the wait, and after one for a location that cannot be opened
     */
    std::unique_ptr<backup_detail> begin_backup(backup_type btype);

    /// The tags of this datastore; valid as long as it lives.
    tag_repository& epoch_tag_repository() noexcept;

    /// Does nothing: no recovery uses tags.
    void recover(const epoch_tag& tag) const noexcept;

    /**
     * Merges the log files.
     * @throws limestone_exception always: not available in this version
     */
    void compact_with_online();

    /**
     * Makes a pool for the BLOBs of one transaction; to be called after ready().
     *
     * The content of a registered BLOB is on the disk when its id is returned, its name when a session that refers to
     * it has ended. The pool must not be used after the datastore was destroyed.
     */
    [[nodiscard]] std::unique_ptr<blob_pool> acquire_blob_pool();

    /**
     * Computes the tag that proves access of a transaction to a BLOB; tags of different datastore objects differ.
     * @return the first 8 bytes of HMAC-SHA-256 over both numbers, with a random key of this object
     */
    [[nodiscard]] blob_reference_tag_type generate_reference_tag(blob_id_type blob_id, std::uint64_t transaction_id);

    /// Where the BLOB `reference` is or would be stored. Never throws; an unknown BLOB is not available.
    [[nodiscard]] blob_file get_blob_file(blob_id_type reference);

    /// Records the oldest version that is still read. A smaller one than before is refused with a logged error. Cheap.
    void switch_available_boundary_version(write_version_type version);

    /// Marks BLOBs as referred to by the log, so that the release of their pool keeps them.
    void add_persistent_blob_ids(const std::vector<blob_id_type>& blob_ids);

    /// Removes the marks of `blob_ids` and returns those that had none, in their order.
    std::vector<blob_id_type> check_and_remove_persistent_blob_ids(const std::vector<blob_id_type>& blob_ids);

    /// The library's own part of the datastore.
    datastore_impl* get_impl() noexcept { return impl_.get(); }

    /// Writes a record that `epoch_id` is durable. Guarded. Used by the library only.
    virtual void persist_and_propagate_epoch_id(epoch_id_type epoch_id);

protected:
    // Support for tests that derive from this class (section 5.12). The order of the virtual functions is part of the
    // binary interface (section 12.3). Of the hooks the library calls those of sessions and switches,
    // and that of rotations by a call of compact_with_online() or begin_backup(type), before the step that they are
    // named after, on the thread that takes it. The nine `on_update_min_epoch_id_…` are not called: they name steps of
    // the original's way to complete epochs, which this library does not take.

    /// The channels in the order of their creation.
    auto& log_channels_for_tests() const noexcept { return log_channels_; }

    /// The last epoch reported.
    auto epoch_id_informed_for_tests() const noexcept { return epoch_id_informed_.load(); }

    /// The last epoch for which a record was begun.
    auto epoch_id_to_be_recorded_for_tests() const noexcept { return epoch_id_to_be_recorded_.load(); }

    /// The last epoch whose record is on disk.
    auto epoch_id_record_finished_for_tests() const noexcept { return epoch_id_record_finished_.load(); }

    /// The current epoch.
    auto epoch_id_switched_for_tests() const noexcept { return epoch_id_switched_.load(); }

    /// The next BLOB id, 0 while it is not known.
    auto next_blob_id_for_tests() const noexcept { return next_blob_id_.load(); }

    /// The files that construction found in the data location.
    auto& files_for_tests() const noexcept { return files_; }

    /**
     * Puts the epoch records aside as `epoch.<ms>.<current epoch>`, after `ready()`. The new epoch file holds the last
     * record and is never empty.
     */
    void rotate_epoch_file_for_tests() { rotate_epoch_file(); }

    /// Sets the next BLOB id.
    void set_next_blob_id_for_tests(blob_id_type next_blob_id) noexcept { next_blob_id_.store(next_blob_id); }

    /// The BLOBs that are marked as referred to by the log.
    std::set<blob_id_type> get_persistent_blob_ids_for_tests() noexcept {
        std::lock_guard<std::mutex> lock(persistent_blob_ids_mutex_);
        return persistent_blob_ids_;
    }

    /// The version last set with `switch_available_boundary_version()`.
    write_version_type get_available_boundary_version_for_tests() const noexcept { return available_boundary_version_; }

    /// Waits until the BLOB files that were there at the start and that nothing refers to are deleted.
    void wait_for_blob_file_garbace_collector_for_tests() const noexcept;

    virtual void on_rotate_log_files() noexcept {}
    virtual void on_begin_session_current_epoch_id_store() noexcept {}
    virtual void on_end_session_finished_epoch_id_store() noexcept {}
    virtual void on_end_session_current_epoch_id_store() noexcept {}
    virtual void on_switch_epoch_epoch_id_switched_store() noexcept {}
    virtual void on_update_min_epoch_id_epoch_id_switched_load() noexcept {}
    virtual void on_update_min_epoch_id_current_epoch_id_load() noexcept {}
    virtual void on_update_min_epoch_id_finished_epoch_id_load() noexcept {}
    virtual void on_update_min_epoch_id_epoch_id_to_be_recorded_load() noexcept {}
    virtual void on_update_min_epoch_id_epoch_id_to_be_recorded_cas() noexcept {}
    virtual void on_update_min_epoch_id_epoch_id_record_finished_load() noexcept {}
    virtual void on_update_min_epoch_id_epoch_id_informed_load_1() noexcept {}
    virtual void on_update_min_epoch_id_epoch_id_informed_cas() noexcept {}
    virtual void on_update_min_epoch_id_epoch_id_informed_load_2() noexcept {}

    /// Keeps the function that stands for `persist_and_propagate_epoch_id()`; the library does not call it.
    void set_write_epoch_callback(std::function<void(epoch_id_type)> callback) {
        write_epoch_callback_ = std::move(callback);
    }

private:
    /// Keeps ids for `get_persistent_blob_ids_for_tests()`; the core has marked them.
    void note_persistent_blob_ids(const std::vector<blob_id_type>& blob_ids);

    // The offsets that section 12.4 lists, and the size, are part of the binary interface. Everything that is not in
    // that list is in `impl_`.
    std::function<void(epoch_id_type)> write_epoch_callback_{};
    std::vector<std::unique_ptr<log_channel>> log_channels_{};
    char reserved_1_[32]{};
    std::atomic_uint64_t epoch_id_switched_{0};
    std::atomic_uint64_t epoch_id_informed_{0};
    std::atomic_uint64_t epoch_id_to_be_recorded_{0};
    std::atomic_uint64_t epoch_id_record_finished_{0};
    char reserved_2_[344]{};
    std::set<boost::filesystem::path> files_{};
    char reserved_3_[368]{};
    std::atomic_uint64_t next_blob_id_{0};
    std::set<blob_id_type> persistent_blob_ids_{};
    std::mutex persistent_blob_ids_mutex_{};
    char reserved_4_[8]{};
    write_version_type available_boundary_version_{};
    char reserved_5_[40]{};
    std::unique_ptr<datastore_impl> impl_;

    void add_durability_callback(std::function<void(epoch_id_type, durability)> callback) noexcept;
    void rotate_epoch_file();
    void raise_epoch_counters() noexcept;
};

}  // namespace limestone::api
