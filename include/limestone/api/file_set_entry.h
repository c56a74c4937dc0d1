// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file file_set_entry.h
 * One file of a set to restore (public API, section 8.3).
 */

#include <string_view>
#include <utility>

#include <boost/filesystem.hpp>

namespace limestone::internal {
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

/// One file of a set to restore; an ordinary value.
class file_set_entry {
public:
    file_set_entry() noexcept = default;
    ~file_set_entry() = default;
    file_set_entry(file_set_entry const&) = default;
    file_set_entry& operator=(file_set_entry const&) = default;
    file_set_entry(file_set_entry&&) noexcept = default;
    file_set_entry& operator=(file_set_entry&&) noexcept = default;

    /// Describes one file; see the accessors.
    file_set_entry(boost::filesystem::path source_path, boost::filesystem::path destination_path, bool is_detached)
        : source_path_(std::move(source_path)),
          destination_path_(std::move(destination_path)),
          is_detached_(is_detached) {}

    /// Path of the file in the backup; a relative path starts at the backup's directory.
    [[nodiscard]] boost::filesystem::path source_path() const noexcept { return source_path_; }

    /// Path of the file below the data location.
    [[nodiscard]] boost::filesystem::path destination_path() const noexcept { return destination_path_; }

    /// As given; restoring ignores it.
    [[nodiscard]] bool is_detached() const noexcept { return is_detached_; }

private:
    boost::filesystem::path source_path_{};
    boost::filesystem::path destination_path_{};
    bool is_detached_{};

    friend struct internal::layout_check;
};

}  // namespace limestone::api
