// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file snapshot.h
 * The state that recovery found (public API, section 7.1).
 */

#include <cstddef>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include <boost/filesystem.hpp>

#include <limestone/api/cursor.h>
#include <limestone/api/write_version_type.h>

namespace limestone::internal {
class snapshot_impl;
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

class datastore;
class log_channel;

/**
 * The entries that were durable when `datastore::ready()` ran; later writes never show up.
 *
 * All functions may be called from any thread at the same time. Cursors stay valid after the snapshot is destroyed.
 */
class snapshot {
public:
    snapshot() noexcept = delete;
    snapshot(const snapshot&) = delete;
    snapshot& operator=(const snapshot&) = delete;
    snapshot(snapshot&&) noexcept = delete;
    snapshot& operator=(snapshot&&) noexcept = delete;
    ~snapshot();

    /// Name of the directory, below the data location, in which the original keeps its snapshot file.
    constexpr static const std::string_view subdirectory_name_ = "data";

    /// Name of the original's snapshot file in that directory.
    constexpr static const std::string_view file_name_ = "snapshot";

    /**
     * A new cursor before the first entry; any number may be open at a time.
     * @return a cursor over all entries, ascending by the eight little-endian bytes of the storage id, then by key
     * @note an I/O error ends the process (section 2.3)
     */
    [[nodiscard]] std::unique_ptr<cursor> get_cursor() const;

    /**
     * Splits the entries over cursors that are meant for one thread each.
     * @param n number of cursors, at least 1
     * @return exactly `n` cursors; each entry appears in exactly one of them, ascending within it
     * @note `n == 0` and a second call on one object end the process (section 7.1)
     */
    [[nodiscard]] std::vector<std::unique_ptr<cursor>> get_partitioned_cursors(std::size_t n);

    /**
     * Looks up one key; the original ends the process here. The cost grows with the logarithm of the number of entries.
     * @return a cursor before the entry of that key, which is its only one; without such an entry, an empty cursor,
     *     never null
     * @note an I/O error ends the process (section 2.3)
     */
    [[nodiscard]] std::unique_ptr<cursor> find(storage_id_type storage_id, std::string_view entry_key) const noexcept;

    /**
     * Looks up where a range of keys begins; the original ends the process here. As cheap as `find()`.
     * @param entry_key the lower bound; there need not be an entry with this key. An empty one is below all others
     * @param inclusive whether the entry with exactly this key belongs to the range
     * @return a cursor before the first entry of the range, which ends with the storage; ascending by key; never null
     * @note an I/O error ends the process (section 2.3)
     */
    [[nodiscard]] std::unique_ptr<cursor> scan(storage_id_type storage_id, std::string_view entry_key,
                                               bool inclusive) const noexcept;

private:
    std::unique_ptr<internal::snapshot_impl> pimpl_;

    explicit snapshot(std::unique_ptr<internal::snapshot_impl> pimpl) noexcept;

    friend class datastore;
    friend struct internal::layout_check;
};

}  // namespace limestone::api
