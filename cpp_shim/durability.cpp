// SPDX-License-Identifier: Apache-2.0
#include <limestone/api/durability.h>

#include <algorithm>

#include "datastore_impl.h"
#include "errors.h"

namespace limestone::api {

epoch_durability query_durability(datastore& target, epoch_id_type epoch_id) {
    limestone_durability found{};
    auto status = limestone_datastore_durability(target.get_impl()->core_, epoch_id, &found);
    if (status != LIMESTONE_OK) {
        internal::throw_core_error(status, LIMESTONE_HERE);
    }
    return {found.stored, found.propagated, found.degraded, found.replicated};
}

bool wait_durability(datastore& target, epoch_id_type epoch_id, durability state, std::chrono::milliseconds timeout) {
    auto bound = static_cast<std::uint64_t>(std::max<std::int64_t>(timeout.count(), 0));
    auto status =
        limestone_datastore_wait_durable(target.get_impl()->core_, epoch_id, static_cast<std::int32_t>(state), bound);
    if (status != LIMESTONE_OK && status != LIMESTONE_ERR_TIMEOUT) {
        internal::throw_core_error(status, LIMESTONE_HERE);
    }
    return status == LIMESTONE_OK;
}

std::string query_status(datastore const& target) {
    // get_impl() is not const, and this changes nothing.
    auto const* core =
        const_cast<datastore&>(target).get_impl()->core_;  // NOLINT(cppcoreguidelines-pro-type-const-cast)
    std::string document(1024, '\0');
    for (;;) {
        auto size = document.size();
        auto status = limestone_datastore_status(core, document.data(), &size);
        document.resize(size);
        if (status == LIMESTONE_OK) {
            return document;
        }
        // It may have grown since it said its size.
        if (status != LIMESTONE_ERR_TOO_LARGE) {
            internal::throw_core_error(status, LIMESTONE_HERE);
        }
    }
}

}  // namespace limestone::api
