// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file write_version_type.h
 * Version of one write; decides which write of a key wins at recovery (public API, section 3.4).
 */

#include <cstdint>
#include <string>
#include <string_view>

#include <limestone/api/epoch_id_type.h>

namespace limestone::internal {
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

class datastore;
class log_channel;
class log_entry;

/// Signed form of an epoch number that callers use for their own arithmetic.
using epoch_t = std::int64_t;

/**
 * Version of a write: the pair (major, minor), ordered by major first, both unsigned.
 *
 * A plain value of 16 bytes that is passed in two registers (section 12.2); safe to use from any thread like an
 * integer. The minor part is opaque: callers are free to use its highest bit.
 */
class write_version_type {
    friend class datastore;
    friend class log_channel;
    friend class log_entry;
    friend struct internal::layout_check;

public:
    /// The smallest version, (0, 0).
    write_version_type();

    /**
     * Makes the version (epoch_number, minor_write_version).
     * @param epoch_number the major part, usually the epoch of the commit
     * @param minor_write_version the order within the epoch
     */
    write_version_type(epoch_id_type epoch_number, std::uint64_t minor_write_version);

    /**
     * Decodes the binary image of a version.
     * @param version_string bytes 0-7 are the little-endian major, bytes 8-15 the little-endian minor, more are ignored
     * @note fewer than 16 bytes decode as if zero bytes followed
     */
    explicit write_version_type(const std::string& version_string);

    /// Decodes the binary image of a version, as the constructor from `std::string` does.
    explicit write_version_type(std::string_view version_string);

    /// Whether both parts are equal.
    bool operator==(write_version_type value) const {
        return epoch_number_ == value.epoch_number_ && minor_write_version_ == value.minor_write_version_;
    }

    /// Whether this version is older than `value`.
    bool operator<(write_version_type value) const {
        return epoch_number_ != value.epoch_number_ ? epoch_number_ < value.epoch_number_
                                                    : minor_write_version_ < value.minor_write_version_;
    }

    /// Whether this version is not newer than `value`.
    bool operator<=(write_version_type value) const { return !(value < *this); }

    /// The major part.
    [[nodiscard]] epoch_id_type get_major() const { return epoch_number_; }

    /// The minor part.
    [[nodiscard]] std::uint64_t get_minor() const { return minor_write_version_; }

private:
    epoch_id_type epoch_number_;
    std::uint64_t minor_write_version_;
};

}  // namespace limestone::api
