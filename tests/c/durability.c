/* SPDX-License-Identifier: Apache-2.0 */
/* The notify callback, and asking and waiting for the durability of an epoch. */
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"

struct heard {
    limestone_datastore* store;
    uint64_t epochs[8];
    int32_t wait_inside;
    /* Counted when the rest is there. */
    atomic_int count;
};

static void on_notify(void* context, uint64_t epoch) {
    struct heard* heard = context;
    heard->epochs[heard->count] = epoch;
    heard->wait_inside = limestone_datastore_wait_durable(heard->store, epoch + 5, LIMESTONE_STORED, 60000);
    ++heard->count;
}

static void* wait_for_three(void* store) {
    static int32_t status;
    status = limestone_datastore_wait_durable(store, 3, LIMESTONE_STORED, UINT64_MAX);
    return &status;
}

int main(void) {
    char location[256];
    make_location(location, sizeof location);
    limestone_datastore* store = NULL;
    CHECK_OK(open_location(location, &store));
    struct heard heard = {.store = store};
    struct limestone_durability found;
    CHECK(limestone_datastore_durability(NULL, 1, &found) == LIMESTONE_ERR_INVALID_HANDLE);
    CHECK(limestone_datastore_durability(store, 1, NULL) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK_OK(limestone_datastore_set_notify_callback(store, on_notify, &heard));
    CHECK_OK(limestone_datastore_ready(store));
    CHECK_OK(limestone_datastore_switch_epoch(store, 1));
    CHECK_OK(limestone_datastore_durability(store, 1, &found));
    CHECK(!found.stored && !found.propagated && !found.degraded && !found.replicated);
    CHECK(limestone_datastore_wait_durable(store, 1, LIMESTONE_STORED, 10) == LIMESTONE_ERR_TIMEOUT);
    CHECK(limestone_datastore_wait_durable(store, 1, 3, 10) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(limestone_datastore_wait_durable(store, 1, LIMESTONE_PROPAGATED, 60000) == LIMESTONE_ERR_WRONG_STATE);

    CHECK_OK(limestone_datastore_switch_epoch(store, 2));
    CHECK_OK(limestone_datastore_wait_durable(store, 1, LIMESTONE_STORED, 60000));
    CHECK_OK(limestone_datastore_durability(store, 1, &found));
    CHECK(found.stored && !found.propagated && !found.degraded && !found.replicated);
    CHECK_OK(limestone_datastore_wait_durable(store, 1, LIMESTONE_STORED, 0));
    CHECK_SOON(heard.count == 1);
    CHECK(heard.epochs[0] == 1);
    CHECK(heard.wait_inside == LIMESTONE_ERR_WRONG_STATE);
    CHECK(limestone_datastore_notified_epoch(store) == 1);
    CHECK(limestone_datastore_propagated_epoch(store) == 0);

    pthread_t waiter;
    void* status = NULL;
    CHECK(pthread_create(&waiter, NULL, wait_for_three, store) == 0);
    CHECK_OK(limestone_datastore_switch_epoch(store, 4));
    CHECK(pthread_join(waiter, &status) == 0);
    CHECK_OK(*(int32_t*)status);
    CHECK_SOON(heard.count == 2);
    CHECK(heard.epochs[1] == 3);

    CHECK_OK(limestone_datastore_set_notify_callback(store, NULL, NULL));
    CHECK_OK(limestone_datastore_switch_epoch(store, 5));
    CHECK_OK(limestone_datastore_shutdown(store));
    CHECK(heard.count == 2);
    CHECK_OK(limestone_datastore_wait_durable(store, 4, LIMESTONE_STORED, 60000));
    CHECK(limestone_datastore_wait_durable(store, 5, LIMESTONE_STORED, 60000) == LIMESTONE_ERR_WRONG_STATE);
    CHECK_OK(limestone_datastore_destroy(&store));
    CHECK(limestone_datastore_notified_epoch(store) == 0);
    remove_location(location);
    return 0;
}
