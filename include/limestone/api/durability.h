// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file durability.h
 * How far an epoch has come on its way to the disks, and how the datastore stands. An addition to the public API of the
 * original.
 */

#include <chrono>
#include <cstdint>
#include <string>

#include <limestone/api/epoch_id_type.h>

namespace limestone::api {

class datastore;

/// State that an epoch has reached. An epoch is never `propagated` before it is `stored`.
enum class durability : std::int32_t {
    /// Everything of the epoch is synced to the disks of this machine and survives a crash of it.
    stored = 1,
    /// In addition the configured number of replicas confirmed the same about their disks.
    propagated = 2,
};

/// What has become of an epoch.
struct epoch_durability {
    /// Everything of the epoch, and of all before it, is `durability::stored`.
    bool stored{false};
    /// Everything of the epoch, and of all before it, is `durability::propagated`; never without replication.
    bool propagated{false};
    /// The epoch was reported as stored only, because the replicas were given up for a time. They may have it by now.
    bool degraded{false};
    /// Whether replication is configured.
    bool replicated{false};
};

/**
 * Tells what has become of `epoch_id`. Never waits; any thread.
 * @throws limestone_exception for a datastore without a data location
 * @note epochs before the start of this process count as stored, and as propagated when a replica has confirmed them to
 *     this process
 */
[[nodiscard]] epoch_durability query_durability(datastore& target, epoch_id_type epoch_id);

/**
 * Waits until everything of `epoch_id`, and of all before it, has reached `state`. Any number of threads.
 * @param timeout the longest time to wait; zero or less means not to wait
 * @return whether the epoch has reached the state; false when the time is over
 * @throws limestone_exception when the epoch cannot reach the state any more: after a failed write or sync, after
 *     `shutdown()`, and at once for `durability::propagated` without replication. Also within a persistent callback for
 *     an epoch that has not reached the state, because the callback would wait for itself.
 */
[[nodiscard]] bool wait_durability(datastore& target, epoch_id_type epoch_id, durability state,
                                   std::chrono::milliseconds timeout);

/**
 * Tells how `target` and its replicas stand: the document that `tgreplica status --json` prints, one line of JSON, in
 * which what is unknown is `null`. Waits for no disk, no replica and no callback; any thread, also before `ready()` and
 * after `shutdown()`.
 * @throws limestone_exception for a datastore without a data location
 */
[[nodiscard]] std::string query_status(datastore const& target);

}  // namespace limestone::api
