// SPDX-License-Identifier: Apache-2.0
#include <limestone/api/blob_file.h>

#include <utility>

namespace limestone::api {

blob_file::blob_file(boost::filesystem::path path, bool available) noexcept
    : path_(std::move(path)), available_(available) {}

boost::filesystem::path const& blob_file::path() const noexcept {
    return path_;
}

blob_file::operator bool() const noexcept {
    return available_;
}

}  // namespace limestone::api
