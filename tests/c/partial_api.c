/* SPDX-License-Identifier: Apache-2.0 */
/* Tags, the safe snapshot and events. */
#include <stdatomic.h>
#include <unistd.h>

#include "check.h"

struct seen {
    int tags;
    char name[32];
    uint64_t epoch;
    int snapshots;
    uint64_t major;
    bool inclusive;
    atomic_int started;
    atomic_int stored;
    char wal_version[32];
};

static void on_tag(void* context, const limestone_tag* tag) {
    struct seen* seen = context;
    ++seen->tags;
    CHECK(tag->name_len < sizeof seen->name);
    memcpy(seen->name, tag->name, tag->name_len);
    seen->name[tag->name_len] = '\0';
    seen->epoch = tag->epoch;
    CHECK(tag->comments_len == 7 && memcmp(tag->comments, "comment", 7) == 0);
    CHECK(tag->registered_unix_ns > 0);
}

static void on_snapshot(void* context, uint64_t major, uint64_t minor, bool inclusive) {
    struct seen* seen = context;
    ++seen->snapshots;
    seen->major = major;
    seen->inclusive = inclusive;
    CHECK(minor == 7);
}

static void on_event(void* context, const limestone_event* event) {
    struct seen* seen = context;
    CHECK(strcmp(event->instance_id, "me") == 0);
    CHECK(strcmp(event->dbname, "db") == 0);
    CHECK(event->pid == getpid());
    CHECK(event->result == LIMESTONE_EVENT_SUCCESS);
    seen->started += event->type == LIMESTONE_EVENT_WAL_STARTED;
    seen->stored += event->type == LIMESTONE_EVENT_WAL_STORED;
    CHECK(strlen(event->wal_version) < sizeof seen->wal_version);
    strcpy(seen->wal_version, event->wal_version);
}

static limestone_datastore* open_named(const char* location) {
    limestone_settings* settings = NULL;
    limestone_datastore* store = NULL;
    CHECK_OK(limestone_settings_create(&settings));
    CHECK_OK(limestone_settings_set_location(settings, location, strlen(location)));
    CHECK_OK(limestone_settings_set_instance_id(settings, "me", 2));
    CHECK_OK(limestone_settings_set_db_name(settings, "db", 2));
    CHECK_OK(limestone_datastore_open(settings, &store));
    CHECK_OK(limestone_settings_destroy(&settings));
    return store;
}

int main(void) {
    char location[256];
    struct seen seen = {0};
    limestone_channel* channel = NULL;
    make_location(location, sizeof location);
    limestone_datastore* store = open_named(location);
    CHECK_OK(limestone_datastore_set_event_callback(store, on_event, &seen));
    CHECK_OK(limestone_datastore_create_channel(store, &channel));
    CHECK_OK(limestone_datastore_ready(store));
    CHECK(seen.started == 1 && seen.stored == 0 && strcmp(seen.wal_version, "0") == 0);
    CHECK_OK(limestone_datastore_switch_epoch(store, 2));
    CHECK_OK(limestone_channel_begin_session(channel, NULL));
    CHECK_OK(limestone_channel_end_session(channel));
    CHECK_OK(limestone_datastore_switch_epoch(store, 3));
    CHECK_OK(limestone_datastore_wait_durable(store, 2, LIMESTONE_STORED, 60000));
    CHECK(seen.started == 1 && seen.stored == 1 && strcmp(seen.wal_version, "2") == 0);

    CHECK_OK(limestone_datastore_set_snapshot_callback(store, on_snapshot, &seen));
    CHECK_OK(limestone_datastore_switch_safe_snapshot(store, 4, 7, false));
    CHECK_OK(limestone_datastore_switch_safe_snapshot(store, 3, 7, true));
    CHECK(seen.snapshots == 1 && seen.major == 4 && !seen.inclusive);
    CHECK_OK(limestone_datastore_switch_safe_snapshot(store, 4, 7, true));
    CHECK(seen.snapshots == 2 && seen.inclusive);

    CHECK_OK(limestone_datastore_register_tag(store, "one", 3, "comment", 7));
    CHECK_OK(limestone_datastore_register_tag(store, "one", 3, "other", 5));
    CHECK_OK(limestone_datastore_register_tag(store, "two", 3, "comment", 7));
    CHECK_OK(limestone_datastore_unregister_tag(store, "one", 3));
    CHECK_OK(limestone_datastore_unregister_tag(store, "none", 4));
    CHECK(limestone_datastore_register_tag(store, "\xff", 1, "comment", 7) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(limestone_datastore_register_tag(store, NULL, 1, "comment", 7) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK_OK(limestone_datastore_shutdown(store));
    CHECK(limestone_datastore_register_tag(store, "late", 4, "comment", 7) == LIMESTONE_ERR_WRONG_STATE);
    CHECK_OK(limestone_datastore_destroy(&store));

    store = open_named(location);
    CHECK_OK(limestone_datastore_list_tags(store, on_tag, &seen));
    CHECK(seen.tags == 1 && strcmp(seen.name, "two") == 0 && seen.epoch == 2);
    CHECK_OK(limestone_datastore_find_tag(store, "two", 3, on_tag, &seen));
    CHECK(seen.tags == 2);
    CHECK(limestone_datastore_find_tag(store, "one", 3, on_tag, &seen) == LIMESTONE_ERR_NOT_FOUND);
    CHECK(limestone_datastore_list_tags(store, NULL, NULL) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK_OK(limestone_datastore_destroy(&store));
    remove_location(location);
    return 0;
}
