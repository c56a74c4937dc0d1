/* SPDX-License-Identifier: Apache-2.0 */
/* The C ABI of the transaction log. Generated from src/ffi by scripts/generate_header.sh: do not edit.
 *
 * Every function returns a LIMESTONE_* status unless it says otherwise; limestone_last_error_message() has the text for
 * the last failure on the calling thread. A null, closed or foreign-kind handle gives LIMESTONE_ERR_INVALID_HANDLE. */

#ifndef LIMESTONE_CORE_H
#define LIMESTONE_CORE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// Bytes of the key for `limestone_reference_tag`.
#define LIMESTONE_REFERENCE_KEY_BYTES 16

// Everything of the epoch is on this machine's disk.
#define LIMESTONE_STORED 1

// Everything of the epoch is on the replica's disk as well.
#define LIMESTONE_PROPAGATED 2

// `limestone_datastore_ready` has built the snapshot, or failed to.
#define LIMESTONE_EVENT_WAL_STARTED 1

// A durable-epoch record was written, or could not be.
#define LIMESTONE_EVENT_WAL_STORED 2

// An epoch was sent to a replica, or could not be.
#define LIMESTONE_EVENT_WAL_SHIPPED 3

// The event is a success.
#define LIMESTONE_EVENT_SUCCESS 1

// The event is a failure.
#define LIMESTONE_EVENT_FAILURE 2

// A person must act.
#define LIMESTONE_LOG_ERROR 1

// Something was put right or is doubtful.
#define LIMESTONE_LOG_WARNING 2

// A step of normal operation.
#define LIMESTONE_LOG_INFO 3

#define LIMESTONE_LOG_DEBUG 4

#define LIMESTONE_LOG_TRACE 5

// The call did what it says.
#define LIMESTONE_OK 0

// An argument is null or out of range.
#define LIMESTONE_ERR_INVALID_ARGUMENT 1

// The handle is null, closed, or of another kind.
#define LIMESTONE_ERR_INVALID_HANDLE 2

// The call is not allowed at this time.
#define LIMESTONE_ERR_WRONG_STATE 3

// The system refused an operation; `limestone_last_error_errno` has its number.
#define LIMESTONE_ERR_IO 4

// Another process, or another data store of this one, has the directory open.
#define LIMESTONE_ERR_LOCKED 5

// The directory has no manifest, or one of a version that cannot be opened.
#define LIMESTONE_ERR_UNSUPPORTED_VERSION 6

// The manifest or the catalog cannot be used and has no usable backup.
#define LIMESTONE_ERR_BROKEN_METADATA 7

// Acknowledged data is damaged; the message names the place and what to do.
#define LIMESTONE_ERR_CORRUPTED 8

// An earlier write or sync failed; nothing is acknowledged any more.
#define LIMESTONE_ERR_POISONED 9

// A key, value or list is longer than a log entry can hold.
#define LIMESTONE_ERR_TOO_LARGE 10

// This version does not offer the function.
#define LIMESTONE_ERR_NOT_SUPPORTED 11

// What was asked for does not exist.
#define LIMESTONE_ERR_NOT_FOUND 12

// The time for a wait is over.
#define LIMESTONE_ERR_TIMEOUT 13

// A defect of this library, caught at its border.
#define LIMESTONE_ERR_PANIC 99

// An open backup: while it is open, nothing that it lists is deleted or replaced. Owned by the caller; ended by
// `limestone_backup_end`, also after its data store. Any thread.
typedef struct limestone_backup limestone_backup;

// The BLOBs of one transaction. Owned by the caller; ended by `limestone_blob_pool_destroy`. Registrations from any
// thread, any number at once; the release after them. May be released and destroyed after its data store.
typedef struct limestone_blob_pool limestone_blob_pool;

// A log channel. Owned by its data store. Calls may come from any thread; one session belongs to one caller at a
// time; different channels are independent.
typedef struct limestone_channel limestone_channel;

// Walks over the entries of a snapshot. Owned by the caller; ended by `limestone_cursor_destroy`. One thread at a
// time. Outlives its snapshot and its data store.
typedef struct limestone_cursor limestone_cursor;

// A data store. Owned by the caller; ended by `limestone_datastore_destroy`. Any thread, any number at once;
// `limestone_datastore_switch_epoch` is meant for one thread at a time.
typedef struct limestone_datastore limestone_datastore;

// How to open a data store. Owned by the caller; ended by `limestone_settings_destroy`. One thread at a time.
typedef struct limestone_settings limestone_settings;

// What a start recovered; it never changes. Owned by the caller; ended by `limestone_snapshot_destroy`. Any
// thread. Outlives its data store.
typedef struct limestone_snapshot limestone_snapshot;

// One file of a backup. The paths are not terminated by a zero and valid until the backup is ended.
typedef struct limestone_backup_file {
    // Where the file is: below the data directory as it was set.
    const char *source;
    size_t source_len;
    // Its name in the backup, which has no directories.
    const char *destination;
    size_t destination_len;
    // Whether it may change while it is copied.
    bool is_mutable;
    // Whether a restore can do without it.
    bool is_detached;
} limestone_backup_file;

// One entry of a cursor. The pointers are valid until the cursor is destroyed; they are never null, even
// when a length is 0.
typedef struct limestone_entry {
    uint64_t storage;
    const uint8_t *key;
    size_t key_len;
    const uint8_t *value;
    size_t value_len;
} limestone_entry;

// Told when everything of `epoch` and of all before it has reached `state` (`LIMESTONE_STORED` or
// `LIMESTONE_PROPAGATED`). Epochs of one state strictly increase and may skip. Runs on a thread of the library; with
// `LIMESTONE_COMMIT=direct` in the environment on one that is inside `limestone_datastore_switch_epoch`,
// `limestone_channel_end_session` or `…_abort_session`, or that hears from the replicas. May call back into the
// library; must not throw or jump out.
typedef void (*limestone_persistent_callback)(void *context, uint64_t epoch, int32_t state);

// What has become of an epoch.
typedef struct limestone_durability {
    // Everything of it, and of all before it, is on this machine's disk.
    bool stored;
    // The same is on the replicas' disks; never without replication.
    bool propagated;
    // It was notified as stored only, because the replicas were given up for a time. They may have it by now.
    bool degraded;
    // Whether replication is configured.
    bool replicated;
} limestone_durability;

// Told each epoch once, when everything of it and of all before it has reached the notify level: on this machine's
// disk, or on the replicas' disks when the data store was set up so. Epochs strictly increase and may skip. Same
// threads and rules as for `limestone_persistent_callback`; one of the two runs at a time.
typedef void (*limestone_notify_callback)(void *context, uint64_t epoch);

// One event, with the fields of the original's audit log. The texts end with a zero byte and are valid during the
// call.
typedef struct limestone_event {
    // One of `LIMESTONE_EVENT_WAL_*`.
    int32_t type;
    // `LIMESTONE_EVENT_SUCCESS` or `LIMESTONE_EVENT_FAILURE`.
    int32_t result;
    // Process id when the callback was set.
    int64_t pid;
    // From `limestone_settings_set_instance_id`.
    const char *instance_id;
    // From `limestone_settings_set_db_name`.
    const char *dbname;
    // The epoch as decimal digits; for `LIMESTONE_EVENT_WAL_STARTED` the recovered epoch, after a failure 0.
    const char *wal_version;
} limestone_event;

// Told each event. Runs on the thread on which it happened, which may hold up epochs: it must be quick, must not call
// back into the library, and must not throw or jump out.
typedef void (*limestone_event_callback)(void *context, const struct limestone_event *event);

// Gets one log line, `message_len` bytes of UTF-8 without a line end; not terminated by a zero. Any thread. Must not
// throw, and must not call this library: it may
// run under any of its locks.
typedef void (*limestone_log_callback)(void *context, int32_t level, const char *message, size_t message_len);

// One file to restore. The paths need not be terminated by a zero.
typedef struct limestone_file_to_restore {
    // Absolute, or below the directory of the backup.
    const char *source;
    size_t source_len;
    // The name that the file gets in the data directory; ignored for a source that is named like a BLOB.
    const char *destination;
    size_t destination_len;
} limestone_file_to_restore;

// How far a restore has come.
typedef struct limestone_restore_progress {
    // 0: none was begun, or the backup is being checked and copied; 1: the content is being replaced; 2: done; -1:
    // failed after the old content was given up, the next start completes it; -2: given up, nothing was changed.
    int32_t phase;
    // Files that were copied, of so many.
    uint64_t files_done;
    uint64_t files_total;
    uint64_t bytes_done;
} limestone_restore_progress;

// Told the safe snapshot after it moved: all writes with a version below (`major`, `minor`) are within it, and those
// of that version when `inclusive`. One call at a time, each above the one before; some are left out when the safe
// snapshot moves while a call runs. Runs on a thread that is inside `limestone_datastore_switch_safe_snapshot`; may
// call back into the library; must not throw or jump out.
typedef void (*limestone_snapshot_callback)(void *context, uint64_t major, uint64_t minor, bool inclusive);

// A name for an epoch. The texts are UTF-8, not terminated, and valid during the call that shows the tag.
typedef struct limestone_tag {
    const char *name;
    size_t name_len;
    const char *comments;
    size_t comments_len;
    // The last durable epoch when the tag was registered.
    uint64_t epoch;
    // When it was registered, in nanoseconds since 1970.
    int64_t registered_unix_ns;
} limestone_tag;

// Is shown one tag.
typedef void (*limestone_tag_callback)(void *context, const struct limestone_tag *tag);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Begins a plain backup: every file that is there, live log files included. For a data store that nobody writes to;
// see `limestone_datastore_begin_detailed_backup` otherwise, which must not be called before this backup has ended.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; `out` must be null or writable.
int32_t limestone_datastore_begin_backup(struct limestone_datastore *datastore, struct limestone_backup **out);

// Begins a detailed backup: files that nobody changes any more, beside running writers. Waits until the current epoch
// is durable, at most `patience_ms`; what has been acknowledged is in the backup in any case.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; `out` must be null or writable.
int32_t limestone_datastore_begin_detailed_backup(struct limestone_datastore *datastore,
                                                  uint64_t patience_ms,
                                                  struct limestone_backup **out);

// The number of files of a backup; 0 for an invalid handle.
//
// # Safety
// `backup` must come from one of the functions that begin a backup.
size_t limestone_backup_file_count(const struct limestone_backup *backup);

// Describes the file number `index`, counted from 0.
//
// # Safety
// `backup` must come from one of the functions that begin a backup; `out` must be null or writable.
int32_t limestone_backup_get_file(const struct limestone_backup *backup,
                                  size_t index,
                                  struct limestone_backup_file *out);

// The epoch up to which a detailed backup holds everything, and beyond which nothing of it counts. 0 for an invalid
// handle.
//
// # Safety
// `backup` must come from one of the functions that begin a backup.
uint64_t limestone_backup_log_finish(const struct limestone_backup *backup);

// Ends the backup and sets `*backup` to null. A null `*backup` is no error.
//
// # Safety
// `backup` must be null or point to a handle or null.
int32_t limestone_backup_end(struct limestone_backup **backup);

// Puts the epoch records aside under a rotated name and begins a new epoch file with the last one.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
int32_t limestone_datastore_rotate_epoch_file(struct limestone_datastore *datastore);

// Stores the tag that shows that a BLOB id was handed out in a transaction: the first eight bytes, as a little-endian
// number, of the HMAC-SHA-256 with `key` over both numbers in little endian.
//
// # Safety
// `key` must have `LIMESTONE_REFERENCE_KEY_BYTES` bytes; `out` must be null or writable.
int32_t limestone_reference_tag(const uint8_t *key, uint64_t blob_id, uint64_t transaction_id, uint64_t *out);

// The largest BLOB id that `limestone_datastore_ready` found in durable entries and the catalog; 0 before it, when
// there is none, and for an invalid handle.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
uint64_t limestone_datastore_max_blob_id(const struct limestone_datastore *datastore);

// The id that the next registered BLOB gets: above every id in durable entries, the catalog and the names of BLOB
// files. 0 before `limestone_datastore_ready` and for an invalid handle.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
uint64_t limestone_datastore_next_blob_id(const struct limestone_datastore *datastore);

// Lets no BLOB id below `next` be given out any more. A smaller value than the present one changes nothing.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
int32_t limestone_datastore_raise_next_blob_id(struct limestone_datastore *datastore, uint64_t next);

// Tells where a BLOB is or would be stored and whether it can be read now: its id was given out and its file exists.
// Stores the length of the path in `out_len` and the path, without a zero behind it, in `path`; when it is longer than
// `capacity` bytes, nothing is stored in `path` and `out_len` says how many are needed. The path is relative when that
// of the data directory is.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; `path` must have room for `capacity` bytes; `out_len` and
// `out_available` must be null or writable.
int32_t limestone_datastore_blob_file(const struct limestone_datastore *datastore,
                                      uint64_t blob_id,
                                      char *path,
                                      size_t capacity,
                                      size_t *out_len,
                                      bool *out_available);

// Marks BLOBs as needed, as an entry that refers to them does: the release of their pool keeps them. Ids that no pool
// owns are ignored.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; `blob_ids` must have `count` numbers.
int32_t limestone_datastore_mark_blobs(struct limestone_datastore *datastore, const uint64_t *blob_ids, size_t count);

// Takes marks back: the release of their pool deletes the BLOBs.
//
// # Safety
// As for `limestone_datastore_mark_blobs`.
int32_t limestone_datastore_unmark_blobs(struct limestone_datastore *datastore, const uint64_t *blob_ids, size_t count);

// Waits until the BLOB files that were there at the start and that no entry refers to are deleted.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
int32_t limestone_datastore_wait_for_blob_collection(const struct limestone_datastore *datastore);

// Makes a pool for the BLOBs of one transaction. Registrations fail before `limestone_datastore_ready`.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; `out` must be null or writable.
int32_t limestone_blob_pool_acquire(struct limestone_datastore *datastore, struct limestone_blob_pool **out);

// Registers `len` bytes as a new BLOB and stores its id in `out_id`. The content is on the disk when this returns, its
// name when a session that refers to the BLOB has ended. `LIMESTONE_ERR_IO` when the disk refuses: the data store goes
// on. `LIMESTONE_ERR_WRONG_STATE` after the release, before `limestone_datastore_ready` and after the shutdown.
//
// # Safety `pool` must come from `limestone_blob_pool_acquire`; `data` must have `len` bytes; `out_id` must be null or
// writable.
int32_t limestone_blob_pool_register_data(struct limestone_blob_pool *pool,
                                          const uint8_t *data,
                                          size_t len,
                                          uint64_t *out_id);

// Registers the content of a file as a new BLOB: moved when `is_temporary`, also to another file system, else copied.
// `LIMESTONE_ERR_IO` with the error number `ENOENT` when there is no such file; otherwise as
// `limestone_blob_pool_register_data`. After a failure the file is where it was.
//
// # Safety
// `pool` must come from `limestone_blob_pool_acquire`; `path` must have `path_len` bytes; `out_id` must be null or
// writable.
int32_t limestone_blob_pool_register_file(struct limestone_blob_pool *pool,
                                          const char *path,
                                          size_t path_len,
                                          bool is_temporary,
                                          uint64_t *out_id);

// Registers a new BLOB with the content of the BLOB `reference`, without copying it. `LIMESTONE_ERR_NOT_FOUND` when
// there is no such BLOB; otherwise as `limestone_blob_pool_register_data`.
//
// # Safety
// `pool` must come from `limestone_blob_pool_acquire`; `out_id` must be null or writable.
int32_t limestone_blob_pool_duplicate(struct limestone_blob_pool *pool, uint64_t reference, uint64_t *out_id);

// Deletes the BLOBs of the pool that no entry refers to; after the shutdown of the data store that is left to the next
// start. Nothing can be registered afterwards. Calling it again does nothing.
//
// # Safety
// `pool` must come from `limestone_blob_pool_acquire`.
int32_t limestone_blob_pool_release(struct limestone_blob_pool *pool);

// Ends the pool and sets `*pool` to null. Without a release the BLOBs that no entry refers to stay until the next
// start. A null `*pool` is no error. Handles of pools, unlike others, are used again long after they were destroyed.
//
// # Safety
// `pool` must be null or point to a handle or null.
int32_t limestone_blob_pool_destroy(struct limestone_blob_pool **pool);

// Begins a session in the current epoch and stores that epoch in `out_epoch` unless it is null.
//
// # Safety
// `channel` must come from `limestone_datastore_create_channel`; `out_epoch` must be null or writable.
int32_t limestone_channel_begin_session(struct limestone_channel *channel, uint64_t *out_epoch);

// Ends the session: its bytes are on the disk when this returns, and count when their epoch becomes durable. May run
// the persistent callback.
//
// # Safety
// `channel` must come from `limestone_datastore_create_channel`.
int32_t limestone_channel_end_session(struct limestone_channel *channel);

// Ends the session with nothing written: no start sees it, and its epoch completes as if it had never begun. Other
// sessions of the channel stay. What was written out of it is cut off and synced when this returns. May run the
// persistent callback. BLOBs that it refers to stay until the next start. `LIMESTONE_ERR_WRONG_STATE` when no session
// is open.
//
// # Safety
// `channel` must come from `limestone_datastore_create_channel`.
int32_t limestone_channel_abort_session(struct limestone_channel *channel);

// Appends an upsert to the open session. Key and value are copied; each may be empty and has at most 2^32 - 1 bytes.
//
// # Safety
// `channel` must come from `limestone_datastore_create_channel`; `key` and `value` must have the given lengths.
int32_t limestone_channel_add_entry(struct limestone_channel *channel,
                                    uint64_t storage,
                                    const uint8_t *key,
                                    size_t key_len,
                                    const uint8_t *value,
                                    size_t value_len,
                                    uint64_t major,
                                    uint64_t minor);

// Appends an upsert that refers to BLOBs. With no ids it is the same as `limestone_channel_add_entry`.
//
// # Safety
// As for `limestone_channel_add_entry`; `blob_ids` must have `blob_count` numbers.
int32_t limestone_channel_add_entry_with_blobs(struct limestone_channel *channel,
                                               uint64_t storage,
                                               const uint8_t *key,
                                               size_t key_len,
                                               const uint8_t *value,
                                               size_t value_len,
                                               uint64_t major,
                                               uint64_t minor,
                                               const uint64_t *blob_ids,
                                               size_t blob_count);

// Appends the removal of a key to the open session.
//
// # Safety
// `channel` must come from `limestone_datastore_create_channel`; `key` must have the given length.
int32_t limestone_channel_remove_entry(struct limestone_channel *channel,
                                       uint64_t storage,
                                       const uint8_t *key,
                                       size_t key_len,
                                       uint64_t major,
                                       uint64_t minor);

// Appends the creation of a storage, which recovery does not look at.
//
// # Safety
// `channel` must come from `limestone_datastore_create_channel`.
int32_t limestone_channel_add_storage(struct limestone_channel *channel,
                                      uint64_t storage,
                                      uint64_t major,
                                      uint64_t minor);

// Appends the removal of a storage: hides every entry of it with an older version.
//
// # Safety
// `channel` must come from `limestone_datastore_create_channel`.
int32_t limestone_channel_remove_storage(struct limestone_channel *channel,
                                         uint64_t storage,
                                         uint64_t major,
                                         uint64_t minor);

// Appends the truncation of a storage: hides every entry of it with an older version.
//
// # Safety
// `channel` must come from `limestone_datastore_create_channel`.
int32_t limestone_channel_truncate_storage(struct limestone_channel *channel,
                                           uint64_t storage,
                                           uint64_t major,
                                           uint64_t minor);

// Merges all log files but those that are being written into the compacted file and lists them in the catalog as
// detached; they may then be deleted. Sessions go on meanwhile. Waits until everything up to the current epoch is
// durable, which needs a switch of epochs unless it is already; a shutdown ends the wait. A second call waits for the
// first. While a backup is open the compaction is postponed, and what a replica lacks after some seconds stays in the
// log; this returns, and a thread of the data store does it as soon as it can. An error loses nothing, and the data
// store works on unless writing the log has failed.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
int32_t limestone_datastore_compact(struct limestone_datastore *datastore);

// Declares that nobody reads versions below (`major`, `minor`) any more, but for the newest of a key: an online
// compaction then deletes BLOBs that only older ones refer to. It does so when `major` lies above the epoch of the
// compaction before. Cheap; any thread. `LIMESTONE_ERR_INVALID_ARGUMENT` for a version below the current one, which
// stays.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
int32_t limestone_datastore_switch_available_boundary_version(struct limestone_datastore *datastore,
                                                              uint64_t major,
                                                              uint64_t minor);

// Gives a new view of what `limestone_datastore_ready` recovered. `LIMESTONE_ERR_WRONG_STATE` before that.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; `out` must be null or writable.
int32_t limestone_snapshot_open(const struct limestone_datastore *datastore, struct limestone_snapshot **out);

// Makes a cursor before the first entry. Entries come in the order of the bytes "storage id as 8 little-endian bytes,
// then key".
//
// # Safety
// `snapshot` must come from `limestone_snapshot_open`; `out` must be null or writable.
int32_t limestone_snapshot_cursor(const struct limestone_snapshot *snapshot, struct limestone_cursor **out);

// Stores exactly `n` cursors in `out`: each entry is given by one of them, in order within it. Once per snapshot
// handle; `n` must not be 0.
//
// # Safety
// `snapshot` must come from `limestone_snapshot_open`; `out` must have room for `n` pointers.
int32_t limestone_snapshot_partitioned_cursors(const struct limestone_snapshot *snapshot,
                                               size_t n,
                                               struct limestone_cursor **out);

// Makes a cursor over the one entry with this key, before it; over none when there is no such entry. Costs a few reads
// for each doubling of the number of entries.
//
// # Safety `snapshot` must come from `limestone_snapshot_open`; `key` must have `key_len` bytes; `out` must be null or
// writable.
int32_t limestone_snapshot_find(const struct limestone_snapshot *snapshot,
                                uint64_t storage,
                                const uint8_t *key,
                                size_t key_len,
                                struct limestone_cursor **out);

// Makes a cursor over the entries of `storage` whose key is `key` or greater (`inclusive`), or greater, before the
// first of them. They come in the order of their keys; the cursor ends with the storage. As cheap as
// `limestone_snapshot_find`.
//
// # Safety
// As for `limestone_snapshot_find`.
int32_t limestone_snapshot_scan(const struct limestone_snapshot *snapshot,
                                uint64_t storage,
                                const uint8_t *key,
                                size_t key_len,
                                bool inclusive,
                                struct limestone_cursor **out);

// Ends the snapshot handle and sets `*snapshot` to null; its cursors stay valid. A null `*snapshot` is no error.
//
// # Safety
// `snapshot` must be null or point to a handle or null.
int32_t limestone_snapshot_destroy(struct limestone_snapshot **snapshot);

// Moves to the next entry and stores it in `out`; at the end, and ever after, `*has_entry` is false.
//
// # Safety
// `cursor` must come from this library; `out` and `has_entry` must be null or writable.
int32_t limestone_cursor_next(struct limestone_cursor *cursor, struct limestone_entry *out, bool *has_entry);

// Ends the cursor and sets `*cursor` to null. A null `*cursor` is no error.
//
// # Safety
// `cursor` must be null or point to a handle or null.
int32_t limestone_cursor_destroy(struct limestone_cursor **cursor);

// Within a persistent callback: whether a session ended in any of the epochs that it reports for the first time; with
// `LIMESTONE_PROPAGATED` it may also be true when one ended in a later epoch that is stored. Elsewhere false.
bool limestone_callback_had_writes(void);

// Creates or opens the data directory: takes its lock, checks its version and migrates it. Reads no log. The settings
// may be destroyed afterwards.
//
// # Safety
// `settings` must come from `limestone_settings_create`; `out` must be null or writable.
int32_t limestone_datastore_open(const struct limestone_settings *settings, struct limestone_datastore **out);

// Recovers what was acknowledged and starts the epochs. Once, and again after each shutdown: then the directory is
// opened anew, and the channels and callbacks stay. `LIMESTONE_ERR_CORRUPTED` means that acknowledged data is damaged
// and that no file was changed. On the directory of a replica it takes over. With replication it begins to connect to
// the replica and does not wait for it.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
int32_t limestone_datastore_ready(struct limestone_datastore *datastore);

// Ends the data store and gives the lock of the directory back; open sessions are left without an end. The handle
// stays valid. Calling it again does nothing. With replication, a connected replica first gets the time that is set to
// confirm what is stored; what it does not confirm is said in the log.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
int32_t limestone_datastore_shutdown(struct limestone_datastore *datastore);

// Shuts the data store down when that was not done, and sets `*datastore` to null. Its channels end with it;
// snapshots and cursors stay valid. A null `*datastore` is no error.
//
// # Safety
// `datastore` must be null or point to a handle or null.
int32_t limestone_datastore_destroy(struct limestone_datastore **datastore);

// The largest durable epoch; after `limestone_datastore_ready`, the largest that ever left a trace. 0 for an invalid
// handle.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
uint64_t limestone_datastore_last_epoch(const struct limestone_datastore *datastore);

// The current epoch. 0 for an invalid handle.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
uint64_t limestone_datastore_switched_epoch(const struct limestone_datastore *datastore);

// The largest epoch in the epoch file; 0 before `limestone_datastore_ready` and for an invalid handle.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
uint64_t limestone_datastore_recorded_epoch(const struct limestone_datastore *datastore);

// Makes `epoch` the current one. Earlier epochs whose sessions have all ended become durable and are reported before
// this returns, or on the thread that is busy with an earlier one. A value that is not larger than the current one
// changes nothing but a warning in the log.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
int32_t limestone_datastore_switch_epoch(struct limestone_datastore *datastore, uint64_t epoch);

// Sets the callback for durable epochs, in place of an earlier one; null removes it. When this returns, no call of the
// former one is running or will start, unless it is called from within it. `context` is handed back on any thread.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; the callback must be callable with `context` until it is
// removed or the data store is destroyed.
int32_t limestone_datastore_set_persistent_callback(struct limestone_datastore *datastore,
                                                    limestone_persistent_callback callback,
                                                    void *context);

// Writes a durable-epoch record although nothing asks for it. `LIMESTONE_ERR_WRONG_STATE` when the epoch has not
// ended.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
int32_t limestone_datastore_record_epoch(struct limestone_datastore *datastore, uint64_t epoch);

// Gives every log file a rotated name; rotated files hold ended sessions only. Waits for nobody but a running sync.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
int32_t limestone_datastore_rotate(struct limestone_datastore *datastore);

// Makes the next log channel. The data store owns it; it ends with the data store, and there is no other way to end
// it. No file is made before its first session.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; `out` must be null or writable.
int32_t limestone_datastore_create_channel(struct limestone_datastore *datastore, struct limestone_channel **out);

// Tells what has become of `epoch`. Never waits. Epochs before the start of this process count as stored, and as
// propagated when a replica has confirmed them to this process.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; `out` must be null or writable.
int32_t limestone_datastore_durability(const struct limestone_datastore *datastore,
                                       uint64_t epoch,
                                       struct limestone_durability *out);

// Waits until everything of `epoch` and of all before it has reached `state` (`LIMESTONE_STORED` or
// `LIMESTONE_PROPAGATED`), at most `timeout_ms` milliseconds; 2^64 - 1 means without a bound. Any number of threads.
// `LIMESTONE_ERR_TIMEOUT` when the time is over. A shutdown ends the wait with `LIMESTONE_ERR_WRONG_STATE`, a failed
// write or sync with `LIMESTONE_ERR_POISONED`. `LIMESTONE_ERR_WRONG_STATE` at once for `LIMESTONE_PROPAGATED` without
// replication, and within a callback for what is not reached yet.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
int32_t limestone_datastore_wait_durable(const struct limestone_datastore *datastore,
                                         uint64_t epoch,
                                         int32_t state,
                                         uint64_t timeout_ms);

// The largest epoch that has reached the notify level; after `limestone_datastore_ready`, the recovered one. 0 for an
// invalid handle.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
uint64_t limestone_datastore_notified_epoch(const struct limestone_datastore *datastore);

// The largest epoch that is on the replicas' disks; 0 until a replica has confirmed one to this process, and for an
// invalid handle.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
uint64_t limestone_datastore_propagated_epoch(const struct limestone_datastore *datastore);

// Sets the callback for epochs at the notify level, in place of an earlier one; null removes it. When this returns, no
// call of the former one is running or will start, unless it is called from within it.
//
// # Safety
// As for `limestone_datastore_set_persistent_callback`.
int32_t limestone_datastore_set_notify_callback(struct limestone_datastore *datastore,
                                                limestone_notify_callback callback,
                                                void *context);

// Sets the callback for events, in place of an earlier one; null, as at first, turns events off. To be set before
// `limestone_datastore_ready` in order to hear of it. When this returns, no call of the former one is running or will
// start.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; the callback must be callable with `context` until it is
// removed or the data store is destroyed.
int32_t limestone_datastore_set_event_callback(struct limestone_datastore *datastore,
                                               limestone_event_callback callback,
                                               void *context);

// Sets the callback that gets the log lines of this process's data stores; null removes it. Process-wide.
//
// # Safety
// The callback must be callable with `context` until it is removed.
int32_t limestone_set_log_callback(limestone_log_callback callback, void *context);

// Writes how the data store and its replicas stand, the document that `tgreplica status --json` prints, as one line of
// JSON: role, state, peer, epochs, lag, policy, last error; what is unknown is `null`. `*len` is the size of `buffer`
// and becomes the length of the document, which is not terminated by a zero. `LIMESTONE_ERR_TOO_LARGE` when it does
// not fit: then only `*len` is written. Waits for no disk, no replica and no callback, before and after a shutdown as
// well.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; `len` must be null or point to the size of `buffer`, which
// may be null when that is 0.
int32_t limestone_datastore_status(const struct limestone_datastore *datastore, char *buffer, size_t *len);

// The same as `limestone_datastore_status`, under its former name.
//
// # Safety
// As for `limestone_datastore_status`.
int32_t limestone_datastore_replication_status(const struct limestone_datastore *datastore, char *buffer, size_t *len);

// Has one more replica from now until the shutdown: `name=tcp://host:port`, as `TSURUGI_REPLICATION_REPLICAS` has it,
// or the address alone, which is its name then; UTF-8, `len` bytes. It gets what it lacks and counts to the quorum
// when it has said what it has; how many must have an epoch stays as it was. Waits for no replica. Any thread, between
// `limestone_datastore_ready` and the shutdown, with the native protocol. `LIMESTONE_ERR_INVALID_ARGUMENT` when it is
// not understood or cannot be told from another one, `LIMESTONE_ERR_WRONG_STATE` without replication.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; the text must have the given length.
int32_t limestone_datastore_add_replica(struct limestone_datastore *datastore, const char *replica, size_t len);

// Has the replica of this name no more, from now until the shutdown: what it has does not count, and no log is kept
// for it. Waits for no replica. Otherwise as `limestone_datastore_add_replica`; `LIMESTONE_ERR_WRONG_STATE` also when
// fewer would be left than must have an epoch.
//
// # Safety
// As for `limestone_datastore_add_replica`.
int32_t limestone_datastore_remove_replica(struct limestone_datastore *datastore, const char *name, size_t len);

// Replaces the content of the data directory by the files that lie directly in the directory `from`, between
// `limestone_datastore_open` and `limestone_datastore_ready`. All is checked before anything is changed; a crash
// leaves the old content, or the next start completes the restore. `LIMESTONE_ERR_UNSUPPORTED_VERSION` and
// `LIMESTONE_ERR_BROKEN_METADATA` mean that `from` holds no usable backup.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; `from` must have `from_len` bytes.
int32_t limestone_datastore_restore(struct limestone_datastore *datastore,
                                    const char *from,
                                    size_t from_len,
                                    bool keep_backup);

// As `limestone_datastore_restore`, with an explicit list of files, which stay. `LIMESTONE_ERR_NOT_FOUND` means that a
// source does not exist or is no regular file.
//
// # Safety
// As for `limestone_datastore_restore`; `files` must have `count` elements, each with paths of the lengths it names.
int32_t limestone_datastore_restore_files(struct limestone_datastore *datastore,
                                          const char *from,
                                          size_t from_len,
                                          const struct limestone_file_to_restore *files,
                                          size_t count);

// How far the last restore of this data store has come; may be called while it runs.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; `out` must be null or writable.
int32_t limestone_datastore_restore_progress(const struct limestone_datastore *datastore,
                                             struct limestone_restore_progress *out);

// Moves the safe snapshot and tells the snapshot callback before this returns, or on the thread that is inside the
// callback. One below the present one changes nothing but an error in the log; the same one once more changes nothing.
// Nothing of it is stored. Any thread.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`.
int32_t limestone_datastore_switch_safe_snapshot(struct limestone_datastore *datastore,
                                                 uint64_t major,
                                                 uint64_t minor,
                                                 bool inclusive);

// Sets the callback for the safe snapshot, in place of an earlier one, of which a running call may outlast this; null
// removes it.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; the callback must be callable with `context` until the data
// store is destroyed.
int32_t limestone_datastore_set_snapshot_callback(struct limestone_datastore *datastore,
                                                  limestone_snapshot_callback callback,
                                                  void *context);

// Makes settings with the defaults.
//
// # Safety
// `out` must be null or writable.
int32_t limestone_settings_create(struct limestone_settings **out);

// Sets the data directory, `path_len` bytes. Its parent must exist. There is no default.
//
// # Safety
// `settings` must come from `limestone_settings_create`; `path` must have `path_len` bytes.
int32_t limestone_settings_set_location(struct limestone_settings *settings, const char *path, size_t path_len);

// Sets the number of threads that read the log at a start; 0 or less means the default, 8. No more are used than
// there are processors.
//
// # Safety
// `settings` must come from `limestone_settings_create`.
int32_t limestone_settings_set_recovery_threads(struct limestone_settings *settings, int32_t threads);

// Sets the memory in bytes that the index of a recovery may take; 0 means the default: the environment variable
// `LIMESTONE_RECOVERY_MEMORY_MIB` (in MiB), else 1 GiB.
//
// # Safety
// `settings` must come from `limestone_settings_create`.
int32_t limestone_settings_set_recovery_memory(struct limestone_settings *settings, uint64_t bytes);

// Sets the instance id that events carry, `len` bytes. The default is empty.
//
// # Safety
// `settings` must come from `limestone_settings_create`; `instance_id` must have `len` bytes.
int32_t limestone_settings_set_instance_id(struct limestone_settings *settings, const char *instance_id, size_t len);

// Sets the name of the database that events carry, `len` bytes. The default is empty.
//
// # Safety
// `settings` must come from `limestone_settings_create`; `db_name` must have `len` bytes.
int32_t limestone_settings_set_db_name(struct limestone_settings *settings, const char *db_name, size_t len);

// Takes the settings of replication from the environment variables `TSURUGI_REPLICATION_*`; without
// `TSURUGI_REPLICATION_ENDPOINT` there is none. `LIMESTONE_ERR_INVALID_ARGUMENT` names a variable that is not
// understood. Without this call nothing is replicated, whatever the environment says.
//
// # Safety
// `settings` must come from `limestone_settings_create`.
int32_t limestone_settings_set_replication_from_environment(struct limestone_settings *settings);

// Ends the settings and sets `*settings` to null. A null `*settings` is no error.
//
// # Safety
// `settings` must be null or point to a handle or null.
int32_t limestone_settings_destroy(struct limestone_settings **settings);

// Version of the library, `major.minor.patch`. The text lives as long as the process.
const char *limestone_version(void);

// What a status code means. The text lives as long as the process.
const char *limestone_status_text(int32_t status);

// Text of the last failed call of this thread, empty when there was none, and within the last destructors of a thread
// that ends. Valid until the next failing call of this thread.
const char *limestone_last_error_message(void);

// Error number of the system for the last failed call of this thread, 0 when it had none.
int32_t limestone_last_error_errno(void);

// Gives the last durable epoch a name, with free text. The tag is on the disk when this returns and outlives restarts.
// A name that is there already stays as it is, and the call succeeds. Both texts must be UTF-8. Before
// `limestone_datastore_shutdown` only; a failure leaves the data store as it was.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; the texts must have the given lengths.
int32_t limestone_datastore_register_tag(struct limestone_datastore *datastore,
                                         const char *name,
                                         size_t name_len,
                                         const char *comments,
                                         size_t comments_len);

// Removes a tag; it is gone from the disk when this returns. A name that is not there is no error.
//
// # Safety
// As for `limestone_datastore_register_tag`.
int32_t limestone_datastore_unregister_tag(struct limestone_datastore *datastore, const char *name, size_t name_len);

// Shows the tag with this name to `callback`, before it returns. `LIMESTONE_ERR_NOT_FOUND` when there is none.
//
// # Safety
// As for `limestone_datastore_register_tag`; `callback` must be callable with `context`.
int32_t limestone_datastore_find_tag(const struct limestone_datastore *datastore,
                                     const char *name,
                                     size_t name_len,
                                     limestone_tag_callback callback,
                                     void *context);

// Shows every tag to `callback`, in the order of their names, before it returns.
//
// # Safety
// `datastore` must come from `limestone_datastore_open`; `callback` must be callable with `context`.
int32_t limestone_datastore_list_tags(const struct limestone_datastore *datastore,
                                      limestone_tag_callback callback,
                                      void *context);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LIMESTONE_CORE_H */
