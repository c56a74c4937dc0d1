// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace limestone::internal {

/// Sends the core's log messages to glog; calls after the first one do nothing.
void bridge_core_log() noexcept;

}  // namespace limestone::internal
