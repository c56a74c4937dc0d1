// SPDX-License-Identifier: Apache-2.0
#include <limestone/api/tag_repository.h>

#include <utility>

#include "tag_store.h"

namespace limestone::api {

tag_repository::tag_repository(std::shared_ptr<internal::tag_store> store) noexcept : store_(std::move(store)) {}

epoch_tag tag_repository::made_from(internal::stored_tag const& tag) {
    using clock = std::chrono::system_clock;
    auto since = std::chrono::duration_cast<clock::duration>(std::chrono::nanoseconds(tag.registered_unix_ns));
    return {tag.name, tag.comments, tag.epoch, clock::time_point(since)};
}

std::vector<epoch_tag>& tag_repository::list() noexcept {
    listed_.clear();
    store_->list([this](internal::stored_tag const& tag) { listed_.push_back(made_from(tag)); });
    return listed_;
}

void tag_repository::register_tag(std::string& name, std::string& comments) noexcept {
    store_->add(name, comments);
}

std::optional<epoch_tag> tag_repository::find(std::string_view name) const noexcept {
    std::optional<epoch_tag> found;
    store_->find(std::string{name}, [&found](internal::stored_tag const& tag) { found = made_from(tag); });
    return found;
}

void tag_repository::unregister_tag(std::string_view name) noexcept {
    store_->remove(std::string{name});
}

}  // namespace limestone::api
