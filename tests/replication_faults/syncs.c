/* SPDX-License-Identifier: Apache-2.0
 *
 * Preloaded into a process: its sync number LIMESTONE_TEST_FAILING_SYNC fails, and later ones succeed again, as on
 * Linux after the system has given up what it could not write. While the file LIMESTONE_TEST_SLOW_SYNCS exists, each
 * sync of a file or directory takes a tenth of a second whose path contains LIMESTONE_TEST_SLOW_PART.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int contains(int descriptor, const char* part) {
    char link[64];
    char path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) {
        return 0;
    }
    path[length] = '\0';
    return strstr(path, part) != NULL;
}

static int run(const char* name, int descriptor) {
    static atomic_long count;
    const char* failing = getenv("LIMESTONE_TEST_FAILING_SYNC");
    if (failing != NULL && atomic_fetch_add(&count, 1) + 1 == atol(failing)) {
        errno = EIO;
        return -1;
    }
    const char* slow = getenv("LIMESTONE_TEST_SLOW_SYNCS");
    const char* part = getenv("LIMESTONE_TEST_SLOW_PART");
    if (slow != NULL && part != NULL && contains(descriptor, part) && access(slow, F_OK) == 0) {
        usleep(100 * 1000);
    }
    int (*next)(int);
    *(void**)&next = dlsym(RTLD_NEXT, name);
    return next(descriptor);
}

int fsync(int descriptor) {
    return run("fsync", descriptor);
}
int fdatasync(int descriptor) {
    return run("fdatasync", descriptor);
}
