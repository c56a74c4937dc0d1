// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include <boost/filesystem.hpp>

#include <limestone/api/backup.h>
#include <limestone/api/datastore.h>
#include <limestone/api/event.h>
#include <limestone/api/tag_repository.h>
#include <limestone_core.h>

#include "persistent_callbacks.h"

namespace limestone::api {

/// Where a datastore is in its life cycle (public API, section 2.2).
enum class datastore_state : int {
    not_ready = 0,
    ready = 1,
    shutdown = 2,
};

/// Everything a datastore keeps beyond the members whose place in the class is fixed.
class datastore_impl {
public:
    explicit datastore_impl(boost::filesystem::path location) : location_(std::move(location)) {}

    /// Closes the core's datastore.
    ~datastore_impl();

    datastore_impl(datastore_impl const&) = delete;
    datastore_impl& operator=(datastore_impl const&) = delete;
    datastore_impl(datastore_impl&&) = delete;
    datastore_impl& operator=(datastore_impl&&) = delete;

    /// The data location as configured; empty for an empty datastore.
    boost::filesystem::path const location_;

    /// Null for an empty datastore, otherwise open until destruction.
    limestone_datastore* core_{nullptr};

    std::atomic<datastore_state> state_{datastore_state::not_ready};

    persistent_callbacks callbacks_{};

    /// Guards the replacement of `snapshot_callback_`, which the core's callback copies.
    std::mutex snapshot_mutex_{};
    std::function<void(write_version_type)> snapshot_callback_{};

    /// Guards the replacement of `event_callback_`, which the core points to.
    std::mutex event_mutex_{};
    std::unique_ptr<std::function<void(event const&)>> event_callback_{};

    /// Guards the vector of channels.
    std::mutex channels_mutex_{};

    /// Guards `backup_`.
    std::mutex backup_mutex_{};
    std::unique_ptr<backup> backup_{};

    std::unique_ptr<tag_repository> tags_{};
    std::mutex boundary_version_mutex_{};

    /// Key of the reference tags, random for each object.
    std::array<std::uint8_t, 16> reference_key_{};

    /// Lets the core tell the safe snapshot to `snapshot_callback_`.
    void attach_snapshot_callback() noexcept;
};

}  // namespace limestone::api
