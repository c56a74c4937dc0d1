// SPDX-License-Identifier: Apache-2.0
#include "datastore_impl.h"

namespace limestone::api {

datastore_impl::~datastore_impl() {
    // The core may still call the callbacks, which are destroyed after this.
    backup_.reset();
    if (core_ != nullptr) {
        limestone_datastore_destroy(&core_);
    }
}

void datastore_impl::attach_snapshot_callback() noexcept {
    auto tell = [](void* context, std::uint64_t major, std::uint64_t minor, bool /*inclusive*/) noexcept {
        auto& self = *static_cast<datastore_impl*>(context);
        std::unique_lock<std::mutex> lock(self.snapshot_mutex_);
        auto callback = self.snapshot_callback_;
        lock.unlock();
        if (callback) {
            callback(write_version_type(major, minor));
        }
    };
    limestone_datastore_set_snapshot_callback(core_, tell, this);
}

}  // namespace limestone::api
