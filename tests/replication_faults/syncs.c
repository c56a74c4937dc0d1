/* SPDX-License-Identifier: Apache-2.0
 *
 * Preloaded into a process: its sync number LIMESTONE_TEST_FAILING_SYNC fails, and later ones succeed again, as on
 * Linux after the system has given up what it could not write.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

static int run(const char* name, int descriptor) {
    static atomic_long count;
    const char* failing = getenv("LIMESTONE_TEST_FAILING_SYNC");
    if (failing != NULL && atomic_fetch_add(&count, 1) + 1 == atol(failing)) {
        errno = EIO;
        return -1;
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
