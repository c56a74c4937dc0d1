// SPDX-License-Identifier: Apache-2.0
#include "state_warnings.h"

#include <glog/logging.h>

namespace limestone::internal {

void warn_after_ready(api::datastore_impl const& impl, std::string_view method) noexcept {
    if (impl.state_.load() != api::datastore_state::not_ready) {
        LOG(WARNING) << "/:limestone:api:datastore:" << method << ' ' << method << " called after ready()";
    }
}

void warn_before_ready(api::datastore_impl const& impl, std::string_view method) noexcept {
    if (impl.state_.load() == api::datastore_state::not_ready) {
        LOG(WARNING) << "/:limestone:api:datastore:" << method << ' ' << method << " called before ready()";
    }
}

}  // namespace limestone::internal
