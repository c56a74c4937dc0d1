/* SPDX-License-Identifier: Apache-2.0 */
/* Calls at the ends of threads and processes: in the last destructors of a thread, in exit handlers, in a fork. */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static limestone_datastore* datastore;
static limestone_channel* channel;
static pthread_key_t key;
static int rounds;
static int in_child;

/* Asked by the leak checker, if any: in the child of a fork it takes what threads of the parent hold for lost. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void) {
    return in_child;
}

/* Comes again in later rounds of destructors, when the library's own thread-locals are gone. */
static void at_thread_exit(void* value) {
    CHECK(limestone_channel_end_session(channel) == LIMESTONE_ERR_WRONG_STATE);
    CHECK(limestone_last_error_message() != NULL);
    CHECK(limestone_last_error_errno() == 0);
    CHECK(!limestone_callback_had_writes());
    CHECK_OK(limestone_channel_begin_session(channel, NULL));
    CHECK_OK(add(channel, 1, "last words", "v"));
    CHECK_OK(limestone_channel_end_session(channel));
    CHECK_OK(limestone_datastore_switch_epoch(datastore, limestone_datastore_switched_epoch(datastore) + 1));
    if (++rounds < 3) {
        CHECK(pthread_setspecific(key, value) == 0);
    }
}

static void* fail_and_end(void* context) {
    CHECK(pthread_setspecific(key, &key) == 0);
    CHECK(limestone_channel_end_session(channel) == LIMESTONE_ERR_WRONG_STATE);
    return context;
}

static void at_exit(void) {
    if (datastore == NULL) {
        return;
    }
    CHECK(limestone_channel_end_session(channel) != LIMESTONE_OK);
    CHECK(limestone_last_error_message() != NULL);
    /* In a child this gives back nothing of what belongs to the parent. */
    limestone_datastore_destroy(&datastore);
}

int main(void) {
    char location[256];
    pthread_t thread;
    make_location(location, sizeof location);
    CHECK(atexit(at_exit) == 0);
    CHECK_OK(open_location(location, &datastore));
    CHECK_OK(limestone_datastore_create_channel(datastore, &channel));
    CHECK_OK(limestone_datastore_ready(datastore));
    CHECK_OK(limestone_datastore_switch_epoch(datastore, 1));

    CHECK(pthread_key_create(&key, at_thread_exit) == 0);
    CHECK(pthread_create(&thread, NULL, fail_and_end, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(rounds == 3);

    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        in_child = 1;
        CHECK(limestone_channel_begin_session(channel, NULL) == LIMESTONE_ERR_WRONG_STATE);
        CHECK(limestone_datastore_switch_epoch(datastore, 100) == LIMESTONE_ERR_WRONG_STATE);
        CHECK(limestone_datastore_shutdown(datastore) == LIMESTONE_ERR_WRONG_STATE);
        CHECK(limestone_datastore_last_epoch(datastore) == 0);
        exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);

    CHECK_OK(limestone_channel_begin_session(channel, NULL));
    CHECK_OK(limestone_channel_end_session(channel));
    uint64_t epoch = limestone_datastore_switched_epoch(datastore);
    CHECK_OK(limestone_datastore_switch_epoch(datastore, epoch + 1));
    CHECK_SOON(limestone_datastore_last_epoch(datastore) == epoch);
    CHECK_OK(limestone_datastore_destroy(&datastore));
    remove_location(location);
    return 0;
}
