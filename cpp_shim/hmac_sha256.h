// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace limestone::internal {

/// HMAC-SHA-256 (RFC 2104, FIPS 180-4) of `message`; `key` has at most 64 bytes.
std::array<std::uint8_t, 32> hmac_sha256(const std::uint8_t* key, std::size_t key_size, const std::uint8_t* message,
                                         std::size_t message_size);

}  // namespace limestone::internal
