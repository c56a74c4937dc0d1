// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <boost/filesystem.hpp>

#include <limestone_core.h>

namespace limestone::internal {

/// What the configuration says.
struct core_settings {
    boost::filesystem::path location;
    int recovery_threads;
    std::string instance_id;
    std::string db_name;
};

/**
 * Opens the core's datastore.
 * @throws api::limestone_exception with the text that operators know (public API, section 15.3)
 * @note a location that somebody else has open ends the process
 */
limestone_datastore* open_core(core_settings const& wanted);

/// Raises the core's error "damaged inside the durable range" of `ready()` with the lines that operators know.
[[noreturn]] void fail_corrupted(boost::filesystem::path const& location);

}  // namespace limestone::internal
