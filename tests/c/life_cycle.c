/* SPDX-License-Identifier: Apache-2.0 */
/* Writes with every kind of entry, restarts, and reads everything back. */
#include <stdatomic.h>

#include "check.h"

static void note_epoch(void* context, uint64_t epoch, int32_t state) {
    CHECK(state == LIMESTONE_STORED);
    *(_Atomic uint64_t*)context = epoch;
}

static void expect(limestone_cursor* cursor, uint64_t storage, const char* key, const char* value) {
    limestone_entry entry;
    bool has_entry = false;
    CHECK_OK(limestone_cursor_next(cursor, &entry, &has_entry));
    CHECK(has_entry);
    CHECK(entry.storage == storage);
    CHECK(entry.key_len == strlen(key) && memcmp(entry.key, key, entry.key_len) == 0);
    CHECK(entry.value_len == strlen(value) && memcmp(entry.value, value, entry.value_len) == 0);
}

static void expect_end(limestone_cursor* cursor) {
    limestone_entry entry;
    for (int i = 0; i < 3; ++i) {
        bool has_entry = true;
        CHECK_OK(limestone_cursor_next(cursor, &entry, &has_entry));
        CHECK(!has_entry);
    }
}

static void write_entries(const char* location) {
    limestone_datastore* datastore = NULL;
    limestone_channel* channel = NULL;
    _Atomic uint64_t reported = 0;
    uint64_t epoch = 0;
    const uint64_t blobs[] = {3, 4};

    CHECK_OK(open_location(location, &datastore));
    CHECK(limestone_datastore_last_epoch(datastore) == 0);
    CHECK_OK(limestone_datastore_set_persistent_callback(datastore, note_epoch, &reported));
    CHECK_OK(limestone_datastore_create_channel(datastore, &channel));
    CHECK_OK(limestone_datastore_ready(datastore));
    CHECK_OK(limestone_datastore_switch_epoch(datastore, 1));
    CHECK(limestone_datastore_switched_epoch(datastore) == 1);

    CHECK_OK(limestone_channel_begin_session(channel, &epoch));
    CHECK(epoch == 1);
    CHECK_OK(add(channel, 1, "a", "value of a"));
    CHECK_OK(add(channel, 1, "removed", "x"));
    CHECK_OK(limestone_channel_remove_entry(channel, 1, bytes("removed"), 7, 2, 0));
    CHECK_OK(limestone_channel_add_entry(channel, 1, NULL, 0, NULL, 0, 1, 0));
    CHECK_OK(limestone_channel_add_entry_with_blobs(channel, 1, bytes("blobs"), 5, bytes("b"), 1, 1, 0, blobs, 2));
    CHECK_OK(limestone_channel_add_entry_with_blobs(channel, 1, bytes("none"), 4, bytes("n"), 1, 1, 0, NULL, 0));
    CHECK_OK(limestone_channel_add_storage(channel, 2, 1, 0));
    CHECK_OK(add(channel, 2, "hidden", "x"));
    CHECK_OK(limestone_channel_remove_storage(channel, 2, 2, 0));
    CHECK_OK(add(channel, 3, "hidden", "x"));
    CHECK_OK(limestone_channel_truncate_storage(channel, 3, 2, 0));
    CHECK_OK(limestone_channel_end_session(channel));

    CHECK(reported == 0);
    CHECK_OK(limestone_datastore_switch_epoch(datastore, 2));
    CHECK_SOON(reported == 1);
    CHECK(limestone_datastore_last_epoch(datastore) == 1);
    CHECK(limestone_datastore_recorded_epoch(datastore) == 1);

    CHECK_OK(limestone_datastore_set_persistent_callback(datastore, NULL, NULL));
    CHECK_OK(limestone_datastore_rotate(datastore));
    CHECK_OK(limestone_channel_begin_session(channel, NULL));
    CHECK_OK(add(channel, 4, "aborted", "x"));
    CHECK_OK(limestone_channel_abort_session(channel));
    CHECK(limestone_channel_abort_session(channel) == LIMESTONE_ERR_WRONG_STATE);
    CHECK_OK(limestone_channel_begin_session(channel, NULL));
    CHECK_OK(add(channel, 4, "after", "rotation"));
    CHECK_OK(limestone_channel_end_session(channel));
    CHECK_OK(limestone_datastore_switch_epoch(datastore, 3));
    CHECK_OK(limestone_datastore_record_epoch(datastore, 2));
    CHECK(reported == 1);
    CHECK(limestone_datastore_recorded_epoch(datastore) == 2);

    CHECK_OK(limestone_datastore_shutdown(datastore));
    CHECK_OK(limestone_datastore_shutdown(datastore));
    CHECK(limestone_datastore_last_epoch(datastore) == 2);
    CHECK_OK(limestone_datastore_destroy(&datastore));
    CHECK(datastore == NULL);
}

static void read_entries(const char* location) {
    limestone_datastore* datastore = NULL;
    limestone_snapshot* snapshot = NULL;
    limestone_cursor* cursor = NULL;
    limestone_cursor* found_one = NULL;
    limestone_cursor* found_none = NULL;
    limestone_cursor* range = NULL;
    limestone_cursor* parts[3] = {NULL, NULL, NULL};
    int found = 0;

    CHECK_OK(open_location(location, &datastore));
    CHECK_OK(limestone_datastore_ready(datastore));
    CHECK(limestone_datastore_last_epoch(datastore) == 2);
    CHECK_OK(limestone_snapshot_open(datastore, &snapshot));
    CHECK_OK(limestone_snapshot_cursor(snapshot, &cursor));
    CHECK_OK(limestone_snapshot_partitioned_cursors(snapshot, 3, parts));
    CHECK_OK(limestone_snapshot_find(snapshot, 1, bytes("blobs"), 5, &found_one));
    CHECK_OK(limestone_snapshot_find(snapshot, 1, bytes("blob"), 4, &found_none));
    CHECK_OK(limestone_snapshot_scan(snapshot, 1, bytes("a"), 1, false, &range));
    CHECK(limestone_snapshot_find(snapshot, 1, NULL, 5, &cursor) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(limestone_snapshot_scan(snapshot, 1, NULL, 0, true, NULL) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK_OK(limestone_snapshot_destroy(&snapshot));
    CHECK(snapshot == NULL);
    CHECK_OK(limestone_datastore_destroy(&datastore));

    /* Cursors outlive their snapshot and their datastore. */
    expect(cursor, 1, "", "");
    expect(cursor, 1, "a", "value of a");
    expect(cursor, 1, "blobs", "b");
    expect(cursor, 1, "none", "n");
    expect(cursor, 4, "after", "rotation");
    expect_end(cursor);
    CHECK_OK(limestone_cursor_destroy(&cursor));
    CHECK(cursor == NULL);
    expect(found_one, 1, "blobs", "b");
    expect_end(found_one);
    CHECK_OK(limestone_cursor_destroy(&found_one));
    expect_end(found_none);
    CHECK_OK(limestone_cursor_destroy(&found_none));
    expect(range, 1, "blobs", "b");
    expect(range, 1, "none", "n");
    expect_end(range);
    CHECK_OK(limestone_cursor_destroy(&range));

    for (int i = 0; i < 3; ++i) {
        limestone_entry entry;
        bool has_entry = true;
        for (;;) {
            CHECK_OK(limestone_cursor_next(parts[i], &entry, &has_entry));
            if (!has_entry) {
                break;
            }
            ++found;
        }
        expect_end(parts[i]);
        CHECK_OK(limestone_cursor_destroy(&parts[i]));
    }
    CHECK(found == 5);
}

int main(void) {
    char location[256];
    make_location(location, sizeof location);
    CHECK(strcmp(limestone_version(), "1.0.0") == 0);
    write_entries(location);
    read_entries(location);
    remove_location(location);
    return 0;
}
