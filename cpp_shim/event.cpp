// SPDX-License-Identifier: Apache-2.0
#include <limestone/api/event.h>

#include <exception>
#include <memory>
#include <utility>

#include <glog/logging.h>

#include "datastore_impl.h"
#include "errors.h"

namespace limestone::api {

namespace {

void tell(void* context, limestone_event const* core) noexcept {
    event const shown{static_cast<event_type>(core->type),
                      static_cast<event_result>(core->result),
                      core->pid,
                      core->instance_id,
                      core->dbname,
                      core->wal_version};
    try {
        (*static_cast<std::function<void(event const&)>*>(context))(shown);
    } catch (std::exception const& e) {
        LOG(FATAL) << "/:limestone:api:set_event_callback the event callback threw: " << e.what();
    } catch (...) {
        LOG(FATAL) << "/:limestone:api:set_event_callback the event callback threw";
    }
}

}  // namespace

void set_event_callback(datastore& target, std::function<void(event const&)> callback) {
    auto& impl = *target.get_impl();
    std::lock_guard<std::mutex> lock(impl.event_mutex_);
    auto next = callback ? std::make_unique<std::function<void(event const&)>>(std::move(callback)) : nullptr;
    auto status = limestone_datastore_set_event_callback(impl.core_, next ? &tell : nullptr, next.get());
    if (status != LIMESTONE_OK) {
        internal::throw_core_error(status, LIMESTONE_HERE);
    }
    // The core does not use the former one any more.
    impl.event_callback_ = std::move(next);
}

}  // namespace limestone::api
