// SPDX-License-Identifier: Apache-2.0
#include <limestone/api/tag_repository.h>

namespace limestone::api {

std::vector<epoch_tag>& tag_repository::list() noexcept {
    listed_.clear();
    for (auto const& [name, tag] : tags_) {
        listed_.push_back(tag);
    }
    return listed_;
}

void tag_repository::register_tag(std::string& name, std::string& comments) noexcept {
    tags_.emplace(name, epoch_tag{name, comments, 0, std::chrono::system_clock::now()});
}

std::optional<epoch_tag> tag_repository::find(std::string_view name) const noexcept {
    auto found = tags_.find(std::string{name});
    return found == tags_.end() ? std::nullopt : std::optional<epoch_tag>{found->second};
}

void tag_repository::unregister_tag(std::string_view name) noexcept {
    tags_.erase(std::string{name});
}

}  // namespace limestone::api
