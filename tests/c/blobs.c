/* SPDX-License-Identifier: Apache-2.0 */
/* BLOB pools and files through the C interface. */
#include <errno.h>
#include <stdint.h>

#include "check.h"

static void null_handles(void) {
    limestone_blob_pool* pool = NULL;
    uint64_t id = 0;
    size_t len = 0;
    bool available = false;
    const int32_t invalid = LIMESTONE_ERR_INVALID_HANDLE;
    CHECK(limestone_blob_pool_acquire(NULL, &pool) == invalid);
    CHECK(limestone_blob_pool_register_data(NULL, NULL, 0, &id) == invalid);
    CHECK(limestone_blob_pool_register_file(NULL, "x", 1, false, &id) == invalid);
    CHECK(limestone_blob_pool_duplicate(NULL, 1, &id) == invalid);
    CHECK(limestone_blob_pool_release(NULL) == invalid);
    CHECK(limestone_datastore_next_blob_id(NULL) == 0);
    CHECK(limestone_datastore_raise_next_blob_id(NULL, 1) == invalid);
    CHECK(limestone_datastore_blob_file(NULL, 1, NULL, 0, &len, &available) == invalid);
    CHECK(limestone_datastore_mark_blobs(NULL, &id, 1) == invalid);
    CHECK(limestone_datastore_unmark_blobs(NULL, &id, 1) == invalid);
    CHECK(limestone_datastore_wait_for_blob_collection(NULL) == invalid);
    CHECK_OK(limestone_blob_pool_destroy(&pool));
    CHECK(limestone_blob_pool_destroy(NULL) == LIMESTONE_ERR_INVALID_ARGUMENT);
}

static bool is_available(limestone_datastore* datastore, uint64_t id) {
    char path[300];
    size_t len = 0;
    bool available = false;
    CHECK_OK(limestone_datastore_blob_file(datastore, id, path, sizeof path, &len, &available));
    CHECK(len < sizeof path);
    return available;
}

static void pools(limestone_datastore* datastore) {
    limestone_blob_pool* pool = NULL;
    uint64_t first = 0;
    uint64_t id = 0;
    CHECK_OK(limestone_blob_pool_acquire(datastore, &pool));
    CHECK_OK(limestone_blob_pool_register_data(pool, bytes("data"), 4, &first));
    CHECK(limestone_datastore_next_blob_id(datastore) == first + 1);
    CHECK_OK(limestone_blob_pool_duplicate(pool, first, &id));
    CHECK(id == first + 1);
    CHECK(limestone_blob_pool_duplicate(pool, 999, &id) == LIMESTONE_ERR_NOT_FOUND);
    CHECK(limestone_blob_pool_register_file(pool, "/none", 5, true, &id) == LIMESTONE_ERR_IO);
    CHECK(limestone_last_error_errno() == ENOENT);
    CHECK(limestone_blob_pool_register_data(pool, NULL, 4, &id) == LIMESTONE_ERR_INVALID_ARGUMENT);
    CHECK(limestone_blob_pool_register_data(pool, bytes(""), 0, NULL) == LIMESTONE_ERR_INVALID_ARGUMENT);

    size_t len = 0;
    bool available = false;
    CHECK_OK(limestone_datastore_blob_file(datastore, first, NULL, 0, &len, &available));
    CHECK(len > 0 && available);
    CHECK(limestone_datastore_blob_file(datastore, first, NULL, 1, &len, &available) == LIMESTONE_ERR_INVALID_ARGUMENT);

    CHECK_OK(limestone_datastore_mark_blobs(datastore, &first, 1));
    CHECK_OK(limestone_blob_pool_release(pool));
    CHECK_OK(limestone_blob_pool_release(pool));
    CHECK(is_available(datastore, first));
    CHECK(!is_available(datastore, first + 1));
    CHECK(limestone_blob_pool_register_data(pool, bytes("x"), 1, &id) == LIMESTONE_ERR_WRONG_STATE);

    limestone_blob_pool* stale = pool;
    CHECK_OK(limestone_blob_pool_destroy(&pool));
    CHECK(pool == NULL);
    CHECK(limestone_blob_pool_release(stale) == LIMESTONE_ERR_INVALID_HANDLE);
    CHECK(limestone_blob_pool_destroy(&stale) == LIMESTONE_ERR_INVALID_HANDLE);
}

/* So many pools that handles are used again. */
static void many_pools(limestone_datastore* datastore) {
    for (int i = 0; i < 200000; ++i) {
        limestone_blob_pool* pool = NULL;
        CHECK_OK(limestone_blob_pool_acquire(datastore, &pool));
        CHECK_OK(limestone_blob_pool_release(pool));
        CHECK_OK(limestone_blob_pool_destroy(&pool));
    }
    pools(datastore);
}

int main(void) {
    char location[256];
    limestone_datastore* datastore = NULL;
    limestone_blob_pool* pool = NULL;
    uint64_t id = 0;
    make_location(location, sizeof location);
    null_handles();
    CHECK_OK(open_location(location, &datastore));
    CHECK_OK(limestone_blob_pool_acquire(datastore, &pool));
    CHECK(limestone_blob_pool_register_data(pool, bytes("x"), 1, &id) == LIMESTONE_ERR_WRONG_STATE);
    CHECK_OK(limestone_datastore_ready(datastore));
    CHECK_OK(limestone_datastore_wait_for_blob_collection(datastore));
    pools(datastore);
    many_pools(datastore);
    CHECK_OK(limestone_datastore_raise_next_blob_id(datastore, 1000));
    CHECK_OK(limestone_blob_pool_register_data(pool, bytes("x"), 1, &id));
    CHECK(id == 1000);
    CHECK_OK(limestone_datastore_destroy(&datastore));
    CHECK(limestone_blob_pool_register_data(pool, bytes("x"), 1, &id) == LIMESTONE_ERR_WRONG_STATE);
    CHECK_OK(limestone_blob_pool_release(pool));
    CHECK_OK(limestone_blob_pool_destroy(&pool));
    remove_location(location);
    return 0;
}
