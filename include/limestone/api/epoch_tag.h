// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file epoch_tag.h
 * A name for an epoch (public API, section 10.1).
 */

#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include <limestone/api/epoch_id_type.h>

namespace limestone::internal {
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

class tag_repository;

/// A name that was given to an epoch; an ordinary value that only `tag_repository` creates.
class epoch_tag {
public:
    /// The name.
    [[nodiscard]] std::string_view name() const noexcept { return name_; }

    /// The free text that was given with the name.
    [[nodiscard]] std::string_view comments() const noexcept { return comments_; }

    /// The last durable epoch when the tag was registered; 0 when there was none.
    [[nodiscard]] epoch_id_type epoch_id() const noexcept { return epoch_id_; }

    /// When the tag was registered.
    [[nodiscard]] std::chrono::system_clock::time_point timestamp() const noexcept { return timestamp_; }

private:
    std::string name_;
    std::string comments_;
    epoch_id_type epoch_id_{};
    std::chrono::system_clock::time_point timestamp_;

    epoch_tag(std::string name, std::string comments, epoch_id_type epoch_id,
              std::chrono::system_clock::time_point timestamp)
        : name_(std::move(name)), comments_(std::move(comments)), epoch_id_(epoch_id), timestamp_(timestamp) {}

    friend class tag_repository;
    friend struct internal::layout_check;
};

}  // namespace limestone::api
