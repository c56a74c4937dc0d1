// SPDX-License-Identifier: Apache-2.0
// A transaction engine reduced to what concerns its log: worker threads that commit sessions, each on a log channel of
// its own, an epoch thread that advances the epoch, and acknowledgements when the persistent callback has reached the
// epoch of a session.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <limestone/api/datastore.h>

#include "acknowledgements.h"

namespace mini_engine {

struct engine_options {
    std::string directory;                     ///< data location; created when missing
    std::string acknowledgement_file;          ///< see acknowledgements.h
    std::size_t workers = 4;                   ///< worker threads, one log channel each
    std::chrono::milliseconds duration{1000};  ///< time to run before the orderly stop
    std::chrono::milliseconds epoch{3};        ///< length of an epoch
    std::size_t session_records = 10;          ///< records per session
    std::size_t value_bytes = 100;             ///< size of a value
    std::size_t long_session_every = 25;       ///< every so many sessions one stays open for two epochs; 0: never
};

struct engine_result {
    std::uint64_t sessions = 0;
    std::uint64_t records = 0;
    std::uint64_t acknowledged_records = 0;
};

class engine {
public:
    /// Opens the data location and recovers it; the numbering of the records goes on where it ended.
    explicit engine(engine_options options);

    /// Runs for the configured time, then waits until all that was written is acknowledged.
    /// Throws `std::runtime_error` when that does not happen within ten seconds.
    engine_result run();

private:
    // A session that waits for its acknowledgement.
    struct pending_session {
        limestone::api::epoch_id_type epoch;
        std::uint64_t last_sequence;
    };

    struct worker {
        std::uint64_t id = 0;
        limestone::api::log_channel* channel = nullptr;
        std::uint64_t next_sequence = 0;
        std::uint64_t sessions = 0;
        std::uint64_t records = 0;
        std::mutex pending_mutex;  // the callback runs on the epoch thread and on other workers
        std::deque<pending_session> pending;
        std::uint64_t acknowledged_records = 0;
    };

    void find_next_sequences();
    void advance_epochs();
    void work(worker& self);
    void commit_session(worker& self);
    void acknowledge(limestone::api::epoch_id_type durable_epoch);
    bool everything_acknowledged();

    engine_options options_;
    acknowledgement_writer acknowledgements_;
    std::deque<worker> workers_;  // a deque, because a worker holds a mutex and cannot move
    limestone::api::datastore datastore_;
    limestone::api::epoch_id_type epoch_ = 0;
    std::atomic<bool> stop_workers_{false};
    std::atomic<bool> stop_epochs_{false};
};

/// A datastore configuration for a directory, everything else at its default.
limestone::api::configuration make_configuration(std::string const& directory);

}  // namespace mini_engine
