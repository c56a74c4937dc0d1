/* SPDX-License-Identifier: Apache-2.0
 *
 * Preloaded into a process to be its disk:
 * - Its sync number LIMESTONE_TEST_FAILING_SYNC fails, and later ones succeed again, as on Linux after the system has
 *   given up what it could not write.
 * - While the file LIMESTONE_TEST_SLOW_SYNCS exists, each sync of a file or directory takes a tenth of a second whose
 *   path contains LIMESTONE_TEST_SLOW_PART.
 * - While the file LIMESTONE_TEST_DISK_FAULT exists, calls fail as it says: `CALL ERRNO COUNT PART`, where CALL is
 *   `write`, `sync` or `truncate`, PART is in the path of the file, and all behind the first COUNT calls succeed again.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
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

/* Whether the call fails; then errno says how. */
static int fails(const char* call, int descriptor) {
    static atomic_long failed;
    const char* told = getenv("LIMESTONE_TEST_DISK_FAULT");
    FILE* file = told == NULL ? NULL : fopen(told, "r");
    if (file == NULL) {
        return 0;
    }
    char which[16];
    char part[256];
    int reason = 0;
    long count = 0;
    int found = fscanf(file, "%15s %d %ld %255s", which, &reason, &count, part);
    fclose(file);
    if (found != 4 || strcmp(which, call) != 0 || !contains(descriptor, part)) {
        return 0;
    }
    if (atomic_fetch_add(&failed, 1) >= count) {
        return 0;
    }
    errno = reason;
    return 1;
}

static void* next(const char* name) {
    return dlsym(RTLD_NEXT, name);
}

static int sync_with(const char* name, int descriptor) {
    static atomic_long count;
    const char* failing = getenv("LIMESTONE_TEST_FAILING_SYNC");
    if (failing != NULL && atomic_fetch_add(&count, 1) + 1 == atol(failing)) {
        errno = EIO;
        return -1;
    }
    if (fails("sync", descriptor)) {
        return -1;
    }
    const char* slow = getenv("LIMESTONE_TEST_SLOW_SYNCS");
    const char* part = getenv("LIMESTONE_TEST_SLOW_PART");
    if (slow != NULL && part != NULL && contains(descriptor, part) && access(slow, F_OK) == 0) {
        usleep(100 * 1000);
    }
    int (*call)(int);
    *(void**)&call = next(name);
    return call(descriptor);
}

int fsync(int descriptor) {
    return sync_with("fsync", descriptor);
}

int fdatasync(int descriptor) {
    return sync_with("fdatasync", descriptor);
}

ssize_t pwrite64(int descriptor, const void* bytes, size_t length, off64_t offset) {
    ssize_t (*call)(int, const void*, size_t, off64_t);
    *(void**)&call = next("pwrite64");
    return fails("write", descriptor) ? -1 : call(descriptor, bytes, length, offset);
}

int ftruncate64(int descriptor, off64_t length) {
    int (*call)(int, off64_t);
    *(void**)&call = next("ftruncate64");
    return fails("truncate", descriptor) ? -1 : call(descriptor, length);
}
