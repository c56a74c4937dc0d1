// SPDX-License-Identifier: Apache-2.0
#include "persistent_callbacks.h"

#include <exception>
#include <utility>

#include <glog/logging.h>

namespace limestone::api {

std::int32_t persistent_callbacks::attach(limestone_datastore* core, std::function<void()> observer) noexcept {
    core_ = core;
    observer_ = std::move(observer);
    return attach();
}

std::int32_t persistent_callbacks::attach() noexcept {
    auto status = limestone_datastore_set_persistent_callback(core_, &persistent_callbacks::reached, this);
    if (status != LIMESTONE_OK) {
        return status;
    }
    return limestone_datastore_set_notify_callback(core_, &persistent_callbacks::notified, this);
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
        attach();
    }
}

std::shared_ptr<persistent_callbacks::functions const> persistent_callbacks::current() {
    std::lock_guard<std::mutex> lock(mutex_);
    return functions_;
}

template <class Body>
void persistent_callbacks::run(Body&& body) noexcept {
    try {
        if (observer_) {
            observer_();
        }
        body(*current());
    } catch (std::exception const& e) {
        LOG(FATAL) << "/:limestone:api:datastore:persistent_callback the persistent callback threw: " << e.what();
    } catch (...) {
        LOG(FATAL) << "/:limestone:api:datastore:persistent_callback the persistent callback threw";
    }
}

void persistent_callbacks::reached(void* context, std::uint64_t epoch, std::int32_t state) noexcept {
    static_cast<persistent_callbacks*>(context)->run([epoch, state](functions const& all) {
        if (all.on_durability) {
            all.on_durability(epoch, static_cast<durability>(state));
        }
    });
}

void persistent_callbacks::notified(void* context, std::uint64_t epoch) noexcept {
    static_cast<persistent_callbacks*>(context)->run([epoch](functions const& all) {
        if (all.on_epoch) {
            all.on_epoch(epoch);
        }
    });
}

}  // namespace limestone::api
