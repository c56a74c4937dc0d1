// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file epoch_id_type.h
 * Number of an epoch, the unit of group commit (public API, section 3.1).
 */

#include <cstddef>

namespace limestone::api {

/// Number of an epoch. 0 means "never"; the first epoch of a new data location is 1.
using epoch_id_type = std::size_t;

}  // namespace limestone::api
