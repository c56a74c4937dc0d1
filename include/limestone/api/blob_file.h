// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file blob_file.h
 * Where a BLOB is stored (public API, section 9.2).
 */

#include <boost/filesystem.hpp>

namespace limestone::internal {
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

/// Path of a BLOB and whether it was there when it was looked up; an ordinary value.
class blob_file {
public:
    /// Describes the file at `path`.
    explicit blob_file(boost::filesystem::path path, bool available = false) noexcept;

    /// Path of the file, well-formed even when the BLOB is not available.
    [[nodiscard]] boost::filesystem::path const& path() const noexcept;

    /// Whether the BLOB was available.
    [[nodiscard]] explicit operator bool() const noexcept;

private:
    boost::filesystem::path path_;
    bool available_;

    friend struct internal::layout_check;
};

}  // namespace limestone::api
