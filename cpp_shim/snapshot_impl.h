// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

#include <limestone_core.h>

namespace limestone::internal {

/// A core snapshot.
class snapshot_impl {
public:
    /// Takes over `core`; null stands for a snapshot without entries.
    explicit snapshot_impl(limestone_snapshot* core) noexcept : core_(core) {}

    ~snapshot_impl() { limestone_snapshot_destroy(&core_); }

    snapshot_impl(snapshot_impl const&) = delete;
    snapshot_impl& operator=(snapshot_impl const&) = delete;
    snapshot_impl(snapshot_impl&&) = delete;
    snapshot_impl& operator=(snapshot_impl&&) = delete;

    limestone_snapshot* core_;
    std::atomic<bool> partitioned_{false};
};

}  // namespace limestone::internal
