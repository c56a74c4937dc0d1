// SPDX-License-Identifier: Apache-2.0
#include "core_log.h"

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string_view>

#include <glog/logging.h>

#include <limestone/logging.h>
#include <limestone_core.h>

namespace limestone::internal {

namespace {

/// Log scanners look for the leading `/:limestone` (public API, section 15.2).
std::string_view location_prefix(std::string_view message) noexcept {
    return message.substr(0, 2) == "/:" ? std::string_view{} : std::string_view{"/:limestone "};
}

void write_to_glog(void* /*context*/, std::int32_t level, const char* data, std::size_t size) noexcept {
    std::string_view message{data, size};
    auto prefix = location_prefix(message);
    switch (level) {
        case LIMESTONE_LOG_ERROR:
            LOG(ERROR) << prefix << message;
            break;
        case LIMESTONE_LOG_WARNING:
            LOG(WARNING) << prefix << message;
            break;
        case LIMESTONE_LOG_INFO:
            LOG(INFO) << prefix << message;
            break;
        case LIMESTONE_LOG_DEBUG:
            VLOG(log_debug) << prefix << message;
            break;
        default:
            VLOG(log_trace) << prefix << message;
            break;
    }
}

}  // namespace

void bridge_core_log() noexcept {
    static std::once_flag once;
    std::call_once(once, [] { limestone_set_log_callback(&write_to_glog, nullptr); });
}

}  // namespace limestone::internal
