// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limestone_core.h>

namespace limestone::api {

/// The core's part of a channel; the core's datastore owns the handle.
class log_channel_impl {
public:
    limestone_channel* core_{nullptr};
};

}  // namespace limestone::api
