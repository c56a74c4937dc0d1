// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file event.h
 * Events for an audit log (public API, section 15.5). An addition to the public API of the original, which emits the
 * same events to the altimeter library when it is built with it; `docs/c-api.md` has the lines that connect them.
 */

#include <cstdint>
#include <functional>
#include <string_view>

namespace limestone::api {

class datastore;

/// What happened.
enum class event_type : std::int32_t {
    /// `datastore::ready()` has built the snapshot, or failed to.
    wal_started = 1,
    /// A durable-epoch record was written, or could not be.
    wal_stored = 2,
    /// An epoch was sent to a replica, or could not be.
    wal_shipped = 3,
};

/// How it ended; the numbers are those of altimeter.
enum class event_result : std::int32_t {
    success = 1,
    failure = 2,
};

/// One event; the texts are valid during the call.
struct event {
    event_type type;
    event_result result;
    /// The process id.
    std::int64_t pid;
    /// From the configuration.
    std::string_view instance_id;
    /// From the configuration.
    std::string_view dbname;
    /// The epoch as decimal digits; for `wal_started` the recovered epoch, after a failure 0.
    std::string_view wal_version;
};

/**
 * Sets the function that is told about events; a later call replaces it, an empty one turns events off, as at first.
 *
 * It runs on the thread on which the event happened, which may hold up epochs: it must be quick, must not throw and
 * must not call back into the datastore. When this returns, the former function is not running and will not start.
 * @param target the datastore; set the function before `ready()` to hear of it
 */
void set_event_callback(datastore& target, std::function<void(event const&)> callback);

}  // namespace limestone::api
