// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file storage_id_type.h
 * Number of a storage, the name space of keys (public API, section 3.1).
 */

#include <cstddef>

namespace limestone::api {

/// Number of a storage (table or index) as the caller chose it; the library gives it no meaning.
using storage_id_type = std::size_t;

}  // namespace limestone::api
