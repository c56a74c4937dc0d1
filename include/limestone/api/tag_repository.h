// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file tag_repository.h
 * The names that were given to epochs (public API, section 10.1).
 */

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <limestone/api/epoch_tag.h>

namespace limestone::internal {
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

class datastore;

/// The tags of one datastore. They live in memory only. Not safe for use by several threads at a time.
class tag_repository {
public:
    /// All tags in no particular order; the next call invalidates the result.
    std::vector<epoch_tag>& list() noexcept;

    /// Registers a tag for epoch 0 with the present time; a name that exists already is left as it is.
    void register_tag(std::string& name, std::string& comments) noexcept;

    /// The tag with this name, if there is one.
    std::optional<epoch_tag> find(std::string_view name) const noexcept;

    /// Removes the tag with this name, if there is one.
    void unregister_tag(std::string_view name) noexcept;

private:
    std::unordered_map<std::string, epoch_tag> tags_;
    std::vector<epoch_tag> listed_;

    tag_repository() = default;

    friend class datastore;
    friend struct internal::layout_check;
};

}  // namespace limestone::api
