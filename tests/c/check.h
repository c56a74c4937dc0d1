/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LIMESTONE_TESTS_C_CHECK_H
#define LIMESTONE_TESTS_C_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <limestone_core.h>

/* Ends the program unless the condition holds. */
#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);      \
            fprintf(stderr, "last error: %s\n", limestone_last_error_message()); \
            exit(1);                                                             \
        }                                                                        \
    } while (0)

/* Ends the program unless the call returns LIMESTONE_OK. */
#define CHECK_OK(call) CHECK((call) == LIMESTONE_OK)

/* Ends the program unless the condition comes to hold before a time has passed that no machine needs: epochs complete
   on a thread of the library, soon after the call that lets them. */
#define CHECK_SOON(condition)                                                     \
    do {                                                                          \
        for (int ms_left = 60000; ms_left > 0 && !(condition); --ms_left) {       \
            nanosleep(&(struct timespec){.tv_sec = 0, .tv_nsec = 1000000}, NULL); \
        }                                                                         \
        CHECK(condition);                                                         \
    } while (0)

/* Makes a directory of its own for the program and stores the path of a data location in it, which does not exist. */
static inline void make_location(char* location, size_t size) {
    const char* base = getenv("TMPDIR");
    char directory[200];
    CHECK(snprintf(directory, sizeof directory, "%s/limestone-c-XXXXXX", base != NULL ? base : "/tmp") <
          (int)sizeof directory);
    CHECK(mkdtemp(directory) != NULL);
    CHECK(snprintf(location, size, "%s/log", directory) < (int)size);
}

/* Removes what make_location() made. */
static inline void remove_location(char* location) {
    char command[300];
    *strrchr(location, '/') = '\0';
    CHECK(snprintf(command, sizeof command, "rm -rf '%s'", location) < (int)sizeof command);
    CHECK(system(command) == 0);
}

/* Opens a data location and returns the status. */
static inline int32_t open_location(const char* location, limestone_datastore** datastore) {
    limestone_settings* settings = NULL;
    CHECK_OK(limestone_settings_create(&settings));
    CHECK_OK(limestone_settings_set_location(settings, location, strlen(location)));
    CHECK_OK(limestone_settings_set_recovery_threads(settings, 2));
    int32_t status = limestone_datastore_open(settings, datastore);
    CHECK_OK(limestone_settings_destroy(&settings));
    CHECK(settings == NULL);
    return status;
}

static inline const uint8_t* bytes(const char* text) {
    return (const uint8_t*)text;
}

static inline int32_t add(limestone_channel* channel, uint64_t storage, const char* key, const char* value) {
    return limestone_channel_add_entry(channel, storage, bytes(key), strlen(key), bytes(value), strlen(value), 1, 0);
}

#endif
