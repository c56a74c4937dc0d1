// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include <limestone_core.h>

namespace limestone::internal {

/// One tag as it is kept.
struct stored_tag {
    std::string name;
    std::string comments;
    std::uint64_t epoch{0};
    /// Nanoseconds since 1970.
    std::int64_t registered_unix_ns{0};
};

/// Keeps tags in the core, or in memory for a datastore without a data location.
class tag_store {
public:
    /// @param core null for a datastore without a data location
    explicit tag_store(limestone_datastore* core) noexcept : core_(core) {}

    /// Adds a tag unless there is one with this name; a failure is logged.
    void add(std::string const& name, std::string const& comments);

    /// Removes a tag if there is one; a failure is logged.
    void remove(std::string const& name);

    /// Shows the tag with this name, if there is one.
    void find(std::string const& name, std::function<void(stored_tag const&)> const& show) const;

    /// Shows every tag.
    void list(std::function<void(stored_tag const&)> const& show) const;

private:
    limestone_datastore* core_;
    mutable std::mutex mutex_{};
    std::map<std::string, stored_tag> in_memory_{};
};

}  // namespace limestone::internal
