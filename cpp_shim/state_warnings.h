// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "datastore_impl.h"

namespace limestone::internal {

/// Logs a warning if `method`, which belongs before `ready()`, is called after it (public API, section 2.2).
void warn_after_ready(api::datastore_impl const& impl, std::string_view method) noexcept;

/// Logs a warning if `method`, which belongs after `ready()`, is called before it (public API, section 2.2).
void warn_before_ready(api::datastore_impl const& impl, std::string_view method) noexcept;

}  // namespace limestone::internal
