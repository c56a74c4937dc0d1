/* SPDX-License-Identifier: Apache-2.0 */
/* Null and closed handles, wrong states, bad arguments, double close: each has its status and changes nothing. */
#include <errno.h>

#include "check.h"

static void expect_text(const char* part) {
    CHECK(strstr(limestone_last_error_message(), part) != NULL);
}

static void null_handles(void) {
    limestone_settings* settings = NULL;
    limestone_datastore* datastore = NULL;
    limestone_channel* channel = NULL;
    limestone_snapshot* snapshot = NULL;
    limestone_cursor* cursor = NULL;
    limestone_entry entry;
    bool has_entry = false;
    const int32_t invalid = LIMESTONE_ERR_INVALID_HANDLE;

    CHECK(limestone_settings_set_location(NULL, "x", 1) == invalid);
    CHECK(limestone_settings_set_recovery_threads(NULL, 1) == invalid);
    CHECK(limestone_settings_set_recovery_memory(NULL, 1) == invalid);
    CHECK(limestone_datastore_open(NULL, &datastore) == invalid);
    CHECK(limestone_datastore_ready(NULL) == invalid);
    CHECK(limestone_datastore_shutdown(NULL) == invalid);
    CHECK(limestone_datastore_last_epoch(NULL) == 0);
    CHECK(limestone_datastore_switched_epoch(NULL) == 0);
    CHECK(limestone_datastore_recorded_epoch(NULL) == 0);
    CHECK(limestone_datastore_switch_epoch(NULL, 1) == invalid);
    CHECK(limestone_datastore_set_persistent_callback(NULL, NULL, NULL) == invalid);
    CHECK(limestone_datastore_record_epoch(NULL, 1) == invalid);
    CHECK(limestone_datastore_rotate(NULL) == invalid);
    CHECK(limestone_datastore_create_channel(NULL, &channel) == invalid);
    CHECK(limestone_channel_begin_session(NULL, NULL) == invalid);
    CHECK(limestone_channel_end_session(NULL) == invalid);
    CHECK(add(NULL, 1, "k", "v") == invalid);
    CHECK(limestone_channel_add_entry_with_blobs(NULL, 1, NULL, 0, NULL, 0, 1, 0, NULL, 0) == invalid);
    CHECK(limestone_channel_remove_entry(NULL, 1, NULL, 0, 1, 0) == invalid);
    CHECK(limestone_channel_add_storage(NULL, 1, 1, 0) == invalid);
    CHECK(limestone_channel_remove_storage(NULL, 1, 1, 0) == invalid);
    CHECK(limestone_channel_truncate_storage(NULL, 1, 1, 0) == invalid);
    CHECK(limestone_snapshot_open(NULL, &snapshot) == invalid);
    CHECK(limestone_snapshot_cursor(NULL, &cursor) == invalid);
    CHECK(limestone_snapshot_partitioned_cursors(NULL, 1, &cursor) == invalid);
    CHECK(limestone_cursor_next(NULL, &entry, &has_entry) == invalid);
    expect_text("null");

    /* Closing what is closed is no error; a null pointer to the handle is. */
    CHECK_OK(limestone_settings_destroy(&settings));
    CHECK_OK(limestone_datastore_destroy(&datastore));
    CHECK_OK(limestone_snapshot_destroy(&snapshot));
    CHECK_OK(limestone_cursor_destroy(&cursor));
    CHECK(limestone_settings_destroy(NULL) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(limestone_datastore_destroy(NULL) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(limestone_snapshot_destroy(NULL) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(limestone_cursor_destroy(NULL) == LIMESTONE_ERR_INVALID_ARGUMENT);
}

static void bad_arguments(void) {
    limestone_settings* settings = NULL;
    limestone_datastore* datastore = NULL;
    CHECK(limestone_settings_create(NULL) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK_OK(limestone_settings_create(&settings));
    CHECK(limestone_settings_set_location(settings, NULL, 3) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(limestone_settings_set_location(settings, "", 0) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(limestone_settings_set_location(settings, "a\0b", 3) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(limestone_datastore_open(settings, NULL) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(limestone_datastore_open(settings, &datastore) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(datastore == NULL);
    CHECK_OK(limestone_settings_destroy(&settings));
}

static void closed_handles(const char* location) {
    limestone_datastore* datastore = NULL;
    limestone_channel* channel = NULL;
    CHECK_OK(open_location(location, &datastore));
    CHECK_OK(limestone_datastore_create_channel(datastore, &channel));
    limestone_datastore* copy = datastore;
    CHECK_OK(limestone_datastore_destroy(&datastore));
    CHECK(limestone_datastore_ready(copy) == LIMESTONE_ERR_INVALID_HANDLE);
    expect_text("closed");
    CHECK(limestone_datastore_destroy(&copy) == LIMESTONE_ERR_INVALID_HANDLE);
    CHECK(limestone_channel_begin_session(channel, NULL) == LIMESTONE_ERR_WRONG_STATE);

    limestone_settings* settings = NULL;
    CHECK_OK(limestone_settings_create(&settings));
    CHECK(limestone_datastore_ready((limestone_datastore*)settings) == LIMESTONE_ERR_INVALID_HANDLE);
    CHECK_OK(limestone_settings_destroy(&settings));
}

static void wrong_states(const char* location) {
    limestone_datastore* datastore = NULL;
    limestone_datastore* second = NULL;
    limestone_channel* channel = NULL;
    limestone_snapshot* snapshot = NULL;
    limestone_cursor* cursors[2] = {NULL, NULL};
    const int32_t wrong = LIMESTONE_ERR_WRONG_STATE;

    CHECK_OK(open_location(location, &datastore));
    CHECK(open_location(location, &second) == LIMESTONE_ERR_LOCKED);
    expect_text("another process is using the log directory: ");
    CHECK(second == NULL);
    CHECK(limestone_snapshot_open(datastore, &snapshot) == wrong);
    CHECK_OK(limestone_datastore_create_channel(datastore, &channel));
    CHECK(limestone_datastore_create_channel(datastore, NULL) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK_OK(limestone_datastore_ready(datastore));
    CHECK(limestone_datastore_ready(datastore) == wrong);

    CHECK_OK(limestone_datastore_switch_epoch(datastore, 1));
    CHECK(add(channel, 1, "k", "v") == wrong);
    CHECK(limestone_channel_end_session(channel) == wrong);
    CHECK_OK(limestone_channel_begin_session(channel, NULL));
    CHECK(limestone_channel_begin_session(channel, NULL) == wrong);
    CHECK(limestone_channel_add_entry(channel, 1, NULL, 1, NULL, 0, 1, 0) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(limestone_channel_add_entry_with_blobs(channel, 1, NULL, 0, NULL, 0, 1, 0, NULL, 1) ==
          LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK_OK(add(channel, 1, "k", "v"));
    CHECK_OK(limestone_channel_end_session(channel));

    CHECK_OK(limestone_snapshot_open(datastore, &snapshot));
    CHECK(limestone_snapshot_partitioned_cursors(snapshot, 0, cursors) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK_OK(limestone_snapshot_partitioned_cursors(snapshot, 2, cursors));
    CHECK(limestone_snapshot_partitioned_cursors(snapshot, 2, cursors) == wrong);
    CHECK_OK(limestone_cursor_destroy(&cursors[0]));
    CHECK_OK(limestone_cursor_destroy(&cursors[1]));
    CHECK_OK(limestone_snapshot_destroy(&snapshot));

    CHECK_OK(limestone_datastore_shutdown(datastore));
    CHECK(limestone_channel_begin_session(channel, NULL) == wrong);
    CHECK(limestone_datastore_switch_epoch(datastore, 9) == wrong);

    /* The lock was given back although the handle still lives. */
    CHECK_OK(open_location(location, &second));
    CHECK(limestone_datastore_ready(datastore) == LIMESTONE_ERR_LOCKED);
    CHECK_OK(limestone_datastore_destroy(&second));

    /* And it is taken again by the next start. */
    CHECK_OK(limestone_datastore_ready(datastore));
    CHECK(limestone_datastore_ready(datastore) == wrong);
    CHECK_OK(limestone_channel_begin_session(channel, NULL));
    CHECK_OK(limestone_datastore_destroy(&datastore));
}

static void error_texts(const char* location) {
    limestone_datastore* datastore = NULL;
    char missing[300];
    CHECK(snprintf(missing, sizeof missing, "%s/a/b", location) < (int)sizeof missing);
    CHECK(open_location(missing, &datastore) == LIMESTONE_ERR_IO);
    CHECK(limestone_last_error_errno() == ENOENT);
    expect_text("fail to create directory: ");
    expect_text(missing);
    CHECK(strcmp(limestone_status_text(LIMESTONE_OK), "ok") == 0);
    CHECK(strlen(limestone_status_text(LIMESTONE_ERR_LOCKED)) > 0);
    CHECK(strlen(limestone_status_text(-12345)) > 0);

    /* The number of a failure without one of the system is 0 again. */
    CHECK(limestone_settings_create(NULL) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(limestone_last_error_errno() == 0);
}

int main(void) {
    char location[256];
    make_location(location, sizeof location);
    CHECK(strcmp(limestone_last_error_message(), "") == 0);
    null_handles();
    bad_arguments();
    closed_handles(location);
    wrong_states(location);
    error_texts(location);
    remove_location(location);
    return 0;
}
