// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file tag_repository.h
 * The names that were given to epochs (public API, section 10.1).
 */

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <limestone/api/epoch_tag.h>

namespace limestone::internal {
class tag_store;
struct stored_tag;
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

class datastore;

/**
 * The tags of one datastore. Unlike in the original they outlive a restart, and name an epoch.
 *
 * They are kept in the file `limestone-tags.json` of the data location, which the original ignores. A damaged file is
 * kept under the name `limestone-tags.json.damaged.<k>` with a warning, and there are no tags then; it never keeps the
 * datastore from starting. A datastore without a data location keeps its tags in memory. Tags may be used from the
 * construction of the datastore on and read until its destruction; changes end with `shutdown()`. No recovery uses
 * them. All functions but `list()` may be called from any thread.
 */
class tag_repository {
public:
    /// All tags in the order of their names; the next call invalidates the result.
    std::vector<epoch_tag>& list() noexcept;

    /**
     * Names the last durable epoch, that of `datastore::last_epoch()`, with the present time; a name that exists
     * already is left as it is. The tag is synced to disk when this returns. A failure is logged as an error, changes
     * nothing and leaves the datastore usable.
     * @param name UTF-8; not modified
     * @param comments UTF-8; not modified
     */
    void register_tag(std::string& name, std::string& comments) noexcept;

    /// The tag with this name, if there is one.
    std::optional<epoch_tag> find(std::string_view name) const noexcept;

    /// Removes the tag with this name, if there is one. It is gone from the disk when this returns; as for failures,
    /// see `register_tag()`.
    void unregister_tag(std::string_view name) noexcept;

private:
    // The size is part of the binary interface (section 12.2).
    std::shared_ptr<internal::tag_store> store_;
    std::vector<epoch_tag> listed_;
    char reserved_[40]{};

    explicit tag_repository(std::shared_ptr<internal::tag_store> store) noexcept;
    static epoch_tag made_from(internal::stored_tag const& tag);

    friend class datastore;
    friend struct internal::layout_check;
};

}  // namespace limestone::api
