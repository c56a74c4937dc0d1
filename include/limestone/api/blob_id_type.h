// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file blob_id_type.h
 * Number of a BLOB (public API, section 3.1).
 */

#include <cstdint>

namespace limestone::api {

/// Number of a BLOB, unique within one data location and never used twice.
using blob_id_type = std::uint64_t;

}  // namespace limestone::api
