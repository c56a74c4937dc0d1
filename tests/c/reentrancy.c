/* SPDX-License-Identifier: Apache-2.0 */
/* Callbacks that call back in, from the thread that is inside the library. */
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"

struct state {
    limestone_datastore* datastore;
    limestone_channel* channel;
    uint64_t last;
    atomic_int calls;
    atomic_int log_lines;
};

static void call_back_in(void* context, uint64_t epoch, int32_t durability) {
    struct state* state = context;
    CHECK(durability == LIMESTONE_STORED);
    CHECK(epoch > state->last);
    state->last = epoch;
    ++state->calls;
    CHECK(limestone_datastore_last_epoch(state->datastore) >= epoch);
    CHECK(limestone_datastore_recorded_epoch(state->datastore) <= limestone_datastore_switched_epoch(state->datastore));
    if (state->calls == 1) {
        /* A whole session, which other threads may have going on as well. */
        CHECK_OK(limestone_channel_begin_session(state->channel, NULL));
        CHECK_OK(add(state->channel, 1, "from the callback", "v"));
        CHECK_OK(limestone_channel_end_session(state->channel));
    }
    if (state->calls == 2) {
        CHECK_OK(limestone_datastore_switch_epoch(state->datastore, epoch + 2));
    }
    if (state->calls == 4) {
        CHECK_OK(limestone_datastore_set_persistent_callback(state->datastore, NULL, NULL));
    }
}

static void count_lines(void* context, int32_t level, const char* message, size_t length) {
    struct state* state = context;
    CHECK(level >= LIMESTONE_LOG_ERROR && level <= LIMESTONE_LOG_TRACE);
    CHECK(message != NULL && length > 0);
    ++state->log_lines;
}

static void* switch_backwards(void* context) {
    struct state* state = context;
    CHECK_OK(limestone_datastore_switch_epoch(state->datastore, 1));
    return NULL;
}

int main(void) {
    char location[256];
    struct state state = {NULL, NULL, 0, 0, 0};
    pthread_t thread;
    make_location(location, sizeof location);

    CHECK_OK(limestone_set_log_callback(count_lines, &state));
    CHECK_OK(open_location(location, &state.datastore));
    CHECK_OK(limestone_datastore_create_channel(state.datastore, &state.channel));
    CHECK_OK(limestone_datastore_set_persistent_callback(state.datastore, call_back_in, &state));
    CHECK_OK(limestone_datastore_ready(state.datastore));
    for (uint64_t epoch = 1; epoch <= 12; ++epoch) {
        CHECK_OK(limestone_datastore_switch_epoch(state.datastore, epoch));
        CHECK_SOON(limestone_datastore_last_epoch(state.datastore) + 1 >= epoch);
    }
    CHECK_SOON(state.calls == 4);
    CHECK_SOON(limestone_datastore_last_epoch(state.datastore) == 11);

    /* The library logs through the callback, from any thread, until it is removed. */
    state.log_lines = 0;
    CHECK(pthread_create(&thread, NULL, switch_backwards, &state) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(state.log_lines == 1);
    CHECK_OK(limestone_set_log_callback(NULL, NULL));
    CHECK_OK(limestone_datastore_switch_epoch(state.datastore, 1));
    CHECK(state.log_lines == 1);

    CHECK_OK(limestone_datastore_destroy(&state.datastore));
    remove_location(location);
    return 0;
}
