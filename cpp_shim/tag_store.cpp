// SPDX-License-Identifier: Apache-2.0
#include "tag_store.h"

#include <chrono>

#include <glog/logging.h>

#include "errors.h"

namespace limestone::internal {

namespace {

using show_function = std::function<void(stored_tag const&)>;

void show_core_tag(void* context, limestone_tag const* tag) noexcept {
    (*static_cast<show_function const*>(context))({std::string(tag->name, tag->name_len),
                                                   std::string(tag->comments, tag->comments_len), tag->epoch,
                                                   tag->registered_unix_ns});
}

void log_failure(const char* function, std::string const& name, std::int32_t status) {
    LOG_IF(ERROR, status != LIMESTONE_OK) << "/:limestone:api:tag_repository:" << function << " the tag '" << name
                                          << "' was left as it was: " << core_error_text(status);
}

}  // namespace

void tag_store::add(std::string const& name, std::string const& comments) {
    if (core_ == nullptr) {
        auto since = std::chrono::system_clock::now().time_since_epoch();
        auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
        std::lock_guard<std::mutex> lock(mutex_);
        in_memory_.emplace(name, stored_tag{name, comments, 0, ns});
        return;
    }
    log_failure("register_tag", name,
                limestone_datastore_register_tag(core_, name.data(), name.size(), comments.data(), comments.size()));
}

void tag_store::remove(std::string const& name) {
    if (core_ == nullptr) {
        std::lock_guard<std::mutex> lock(mutex_);
        in_memory_.erase(name);
        return;
    }
    log_failure("unregister_tag", name, limestone_datastore_unregister_tag(core_, name.data(), name.size()));
}

void tag_store::find(std::string const& name, show_function const& show) const {
    if (core_ == nullptr) {
        std::lock_guard<std::mutex> lock(mutex_);
        auto found = in_memory_.find(name);
        if (found != in_memory_.end()) {
            show(found->second);
        }
        return;
    }
    auto* context = const_cast<void*>(static_cast<void const*>(&show));
    auto status = limestone_datastore_find_tag(core_, name.data(), name.size(), &show_core_tag, context);
    // A name that is not UTF-8 cannot be that of a tag.
    if (status != LIMESTONE_ERR_NOT_FOUND && status != LIMESTONE_ERR_INVALID_ARGUMENT) {
        log_failure("find", name, status);
    }
}

void tag_store::list(show_function const& show) const {
    if (core_ == nullptr) {
        std::lock_guard<std::mutex> lock(mutex_);
        for (auto const& [name, tag] : in_memory_) {
            show(tag);
        }
        return;
    }
    auto* context = const_cast<void*>(static_cast<void const*>(&show));
    log_failure("list", "", limestone_datastore_list_tags(core_, &show_core_tag, context));
}

}  // namespace limestone::internal
