// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file durability.h
 * How far an epoch has come on its way to the disks. An addition to the public API of the original.
 */

#include <cstdint>

namespace limestone::api {

/// State that an epoch has reached. An epoch is never `propagated` before it is `stored`.
enum class durability : std::int32_t {
    /// Everything of the epoch is synced to the disks of this machine and survives a crash of it.
    stored = 1,
    /// In addition the configured number of replicas confirmed the same about their disks.
    propagated = 2,
};

}  // namespace limestone::api
