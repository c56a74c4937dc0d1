// SPDX-License-Identifier: Apache-2.0
#include "persistent_callbacks.h"

#include <exception>
#include <utility>

#include <glog/logging.h>

namespace limestone::api {

std::int32_t persistent_callbacks::attach(limestone_datastore* core, std::function<void()> observer) noexcept {
    core_ = core;
    observer_ = std::move(observer);
    return limestone_datastore_set_persistent_callback(core_, &persistent_callbacks::call, this);
}

void persistent_callbacks::set_epoch_function(epoch_function function) noexcept {
    auto old = exchange([&function](functions& all) { all.on_epoch = std::move(function); });
    await_running_call();
}

void persistent_callbacks::set_durability_function(durability_function function) noexcept {
    auto old = exchange([&function](functions& all) { all.on_durability = std::move(function); });
    await_running_call();
}

void persistent_callbacks::clear() noexcept {
    auto old = exchange([](functions& all) { all = functions{}; });
    await_running_call();
}

std::shared_ptr<persistent_callbacks::functions const> persistent_callbacks::exchange(
    std::function<void(functions&)> const& change) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto next = std::make_shared<functions>(*functions_);
    change(*next);
    return std::exchange(functions_, std::move(next));
}

void persistent_callbacks::await_running_call() noexcept {
    if (core_ != nullptr) {
        limestone_datastore_set_persistent_callback(core_, &persistent_callbacks::call, this);
    }
}

void persistent_callbacks::call(void* context, std::uint64_t epoch, std::int32_t state) noexcept {
    auto& self = *static_cast<persistent_callbacks*>(context);
    std::shared_ptr<functions const> current;
    {
        std::lock_guard<std::mutex> lock(self.mutex_);
        current = self.functions_;
    }
    try {
        if (self.observer_) {
            self.observer_();
        }
        if (current->on_durability) {
            current->on_durability(epoch, static_cast<durability>(state));
        }
        // The notify level is STORED as long as there are no replicas.
        if (state == LIMESTONE_STORED && current->on_epoch) {
            current->on_epoch(epoch);
        }
    } catch (std::exception const& e) {
        LOG(FATAL) << "/:limestone:api:datastore:persistent_callback the persistent callback threw: " << e.what();
    } catch (...) {
        LOG(FATAL) << "/:limestone:api:datastore:persistent_callback the persistent callback threw";
    }
}

}  // namespace limestone::api
