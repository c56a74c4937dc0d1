/* SPDX-License-Identifier: Apache-2.0 */
/* Replicas that come and go while the data store runs; nobody listens where they are. */
#include "check.h"

/* With replication if the environment says so. */
static limestone_datastore* start(const char* location) {
    limestone_settings* settings = NULL;
    limestone_datastore* store = NULL;
    CHECK_OK(limestone_settings_create(&settings));
    CHECK_OK(limestone_settings_set_location(settings, location, strlen(location)));
    CHECK_OK(limestone_settings_set_replication_from_environment(settings));
    CHECK_OK(limestone_datastore_open(settings, &store));
    CHECK_OK(limestone_settings_destroy(&settings));
    CHECK_OK(limestone_datastore_ready(store));
    return store;
}

static int32_t change(int32_t (*call)(limestone_datastore*, const char*, size_t), limestone_datastore* store,
                      const char* text) {
    return call(store, text, strlen(text));
}

static void end(limestone_datastore* store) {
    CHECK_OK(limestone_datastore_shutdown(store));
    CHECK_OK(limestone_datastore_destroy(&store));
}

int main(void) {
    char location[256];
    make_location(location, sizeof location);
    limestone_datastore* store = start(location);
    CHECK(change(limestone_datastore_add_replica, store, "a=tcp://127.0.0.1:1") == LIMESTONE_ERR_WRONG_STATE);
    end(store);

    CHECK(setenv("TSURUGI_REPLICATION_REPLICAS", "a=tcp://127.0.0.1:1", 1) == 0);
    CHECK(setenv("TSURUGI_REPLICATION_TIMEOUT_MS", "200", 1) == 0);
    store = start(location);
    CHECK_OK(change(limestone_datastore_add_replica, store, "b=tcp://127.0.0.1:2"));
    CHECK(change(limestone_datastore_add_replica, store, "b=tcp://127.0.0.1:3") == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(change(limestone_datastore_add_replica, store, "127.0.0.1:3") == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(limestone_datastore_add_replica(store, NULL, 1) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK_OK(change(limestone_datastore_remove_replica, store, "a"));
    CHECK(change(limestone_datastore_remove_replica, store, "a") == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(change(limestone_datastore_remove_replica, store, "b") == LIMESTONE_ERR_WRONG_STATE);
    CHECK(change(limestone_datastore_remove_replica, NULL, "b") == LIMESTONE_ERR_INVALID_HANDLE);
    end(store);
    remove_location(location);
    return 0;
}
