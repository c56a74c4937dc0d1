// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file blob_pool.h
 * The BLOBs that one transaction registers (public API, section 9.1).
 */

#include <cstdint>
#include <string_view>

#include <boost/filesystem.hpp>

#include <limestone/api/blob_id_type.h>

namespace limestone::api {

/// Number of a BLOB, unique within one data location and never used twice.
using blob_id_type = std::uint64_t;

/// Proof that the holder may access a BLOB; see `datastore::generate_reference_tag()`.
using blob_reference_tag_type = std::uint64_t;

/**
 * The BLOBs that one transaction registers. Callers derive their own pools, so the order of the virtual functions is
 * part of the binary interface (section 12.3).
 */
class blob_pool {
public:
    blob_pool() = default;
    virtual ~blob_pool() = default;

    blob_pool(blob_pool const&) = delete;
    blob_pool(blob_pool&&) = delete;
    blob_pool& operator=(blob_pool const&) = delete;
    blob_pool& operator=(blob_pool&&) = delete;

    /**
     * Deletes the BLOBs of this pool that no log entry refers to. Calls after the first one do nothing; must not run
     * at the same time as another function of the pool.
     */
    virtual void release() = 0;

    /**
     * Registers a file.
     * @param file the file to register
     * @param is_temporary_file whether the file is moved instead of copied
     * @return the id of the new BLOB
     * @throws limestone_blob_exception when the file is missing or cannot be copied
     * @throws std::logic_error when the pool was released
     */
    [[nodiscard]] virtual blob_id_type register_file(boost::filesystem::path const& file, bool is_temporary_file) = 0;

    /// Registers `data` as a new BLOB and returns its id; errors as for `register_file()`.
    [[nodiscard]] virtual blob_id_type register_data(std::string_view data) = 0;

    /// Registers a new BLOB with the content of `reference` and returns its id; errors as for `register_file()`.
    [[nodiscard]] virtual blob_id_type duplicate_data(blob_id_type reference) = 0;
};

}  // namespace limestone::api
