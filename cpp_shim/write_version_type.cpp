// SPDX-License-Identifier: Apache-2.0
#include <limestone/api/write_version_type.h>

#include <endian.h>

#include <algorithm>
#include <cstring>

namespace limestone::api {

namespace {

/// The little-endian number at `offset`; bytes beyond the end of `image` count as zero.
std::uint64_t number_at(std::string_view image, std::size_t offset) noexcept {
    std::uint64_t number = 0;
    if (offset < image.size()) {
        std::memcpy(&number, image.data() + offset, std::min(sizeof number, image.size() - offset));
    }
    return le64toh(number);
}

}  // namespace

write_version_type::write_version_type() : epoch_number_(0), minor_write_version_(0) {}

write_version_type::write_version_type(epoch_id_type epoch_number, std::uint64_t minor_write_version)
    : epoch_number_(epoch_number), minor_write_version_(minor_write_version) {}

write_version_type::write_version_type(const std::string& version_string)
    : write_version_type(std::string_view{version_string}) {}

write_version_type::write_version_type(std::string_view version_string)
    : epoch_number_(number_at(version_string, 0)), minor_write_version_(number_at(version_string, 8)) {}

}  // namespace limestone::api
