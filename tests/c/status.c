/* SPDX-License-Identifier: Apache-2.0 */
/* How a data store stands, asked while it is busy. */
#include <pthread.h>
#include <time.h>

#include "check.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int is_inside = 0;
static int may_go_on = 0;

/* Keeps the thread that stores epochs busy until the end of the test. */
static void on_persistent(void* context, uint64_t epoch, int32_t state) {
    (void)context;
    (void)epoch;
    (void)state;
    pthread_mutex_lock(&mutex);
    is_inside = 1;
    pthread_cond_broadcast(&changed);
    while (!may_go_on) {
        pthread_cond_wait(&changed, &mutex);
    }
    pthread_mutex_unlock(&mutex);
}

static void* write_without_end(void* argument) {
    limestone_channel* channel = argument;
    int done = 0;
    while (!done) {
        uint64_t epoch = 0;
        CHECK_OK(limestone_channel_begin_session(channel, &epoch));
        CHECK_OK(add(channel, 1, "key", "value"));
        CHECK_OK(limestone_channel_end_session(channel));
        pthread_mutex_lock(&mutex);
        done = may_go_on;
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static void* switch_once(void* store) {
    CHECK_OK(limestone_datastore_switch_epoch(store, 2));
    return NULL;
}

static double now_ms(void) {
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

int main(void) {
    char location[256];
    make_location(location, sizeof location);
    limestone_datastore* store = NULL;
    limestone_channel* channel = NULL;
    char document[4096];
    size_t len = sizeof document;
    CHECK_OK(open_location(location, &store));
    CHECK_OK(limestone_datastore_status(store, document, &len));
    CHECK_OK(limestone_datastore_create_channel(store, &channel));
    CHECK_OK(limestone_datastore_set_persistent_callback(store, on_persistent, NULL));
    CHECK_OK(limestone_datastore_ready(store));
    CHECK_OK(limestone_datastore_switch_epoch(store, 1));

    pthread_t writer, switcher;
    CHECK(pthread_create(&writer, NULL, write_without_end, channel) == 0);
    CHECK(pthread_create(&switcher, NULL, switch_once, store) == 0);
    pthread_mutex_lock(&mutex);
    while (!is_inside) {
        pthread_cond_wait(&changed, &mutex);
    }
    pthread_mutex_unlock(&mutex);
    for (int i = 0; i < 100; i++) {
        double begun = now_ms();
        len = sizeof document;
        CHECK_OK(limestone_datastore_status(store, document, &len));
        CHECK(now_ms() - begun < 200);
    }
    document[len] = '\0';
    CHECK(strstr(document, "\"role\":\"primary\"") != NULL);
    CHECK(strstr(document, "\"state\":\"not replicated\"") != NULL);
    CHECK(strstr(document, "\"switched_epoch\":2") != NULL);
    CHECK(strstr(document, "\"stored_epoch\":1") != NULL);
    CHECK(strstr(document, "\"propagated_epoch\":null") != NULL);
    CHECK(document[0] == '{' && document[len - 1] == '}');

    size_t whole = len;
    len = 0;
    CHECK(limestone_datastore_status(store, NULL, &len) == LIMESTONE_ERR_TOO_LARGE);
    CHECK(len == whole);
    CHECK(limestone_datastore_status(store, NULL, &len) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(limestone_datastore_status(store, document, NULL) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(limestone_datastore_status(NULL, document, &len) == LIMESTONE_ERR_INVALID_HANDLE);
    len = sizeof document;
    CHECK_OK(limestone_datastore_replication_status(store, document, &len));
    CHECK(len == whole);

    pthread_mutex_lock(&mutex);
    may_go_on = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    CHECK(pthread_join(writer, NULL) == 0);
    CHECK(pthread_join(switcher, NULL) == 0);
    CHECK_OK(limestone_datastore_shutdown(store));
    len = sizeof document;
    CHECK_OK(limestone_datastore_status(store, document, &len));
    CHECK_OK(limestone_datastore_destroy(&store));
    remove_location(location);
    return 0;
}
