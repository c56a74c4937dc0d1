/* SPDX-License-Identifier: Apache-2.0
 *
 * Preloaded into a process: reads of the file fail whose inode number stands in the file LIMESTONE_TEST_UNREADABLE, as
 * on a disk that has lost it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_lost(int descriptor) {
    const char* path = getenv("LIMESTONE_TEST_UNREADABLE");
    FILE* file = path == NULL ? NULL : fopen(path, "r");
    if (file == NULL) {
        return 0;
    }
    unsigned long long lost = 0;
    int found = fscanf(file, "%llu", &lost);
    fclose(file);
    struct stat status;
    return found == 1 && fstat(descriptor, &status) == 0 && (unsigned long long)status.st_ino == lost;
}

ssize_t pread64(int descriptor, void* buffer, size_t count, off64_t offset) {
    static ssize_t (*next)(int, void*, size_t, off64_t);
    if (next == NULL) {
        *(void**)&next = dlsym(RTLD_NEXT, "pread64");
    }
    if (is_lost(descriptor)) {
        errno = EIO;
        return -1;
    }
    return next(descriptor, buffer, count, offset);
}
