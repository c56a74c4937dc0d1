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
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <limestone/api/datastore.h>
#include <limestone/api/durability.h>

#include "acknowledgements.h"

namespace mini_engine {

struct engine_options {
    std::string directory;                     ///< data location; created when missing
    std::string acknowledgement_file;          ///< for what is STORED, see acknowledgements.h
    std::string propagated_file;               ///< for what is PROPAGATED; empty: without a replica
    std::chrono::milliseconds report{0};       ///< how often a line with the state of the epochs is printed; 0: never
    std::size_t workers = 4;                   ///< worker threads, one log channel each
    std::chrono::milliseconds duration{1000};  ///< time to run before the orderly stop
    std::chrono::milliseconds epoch{3};        ///< length of an epoch
    std::size_t session_records = 10;          ///< records per session
    std::size_t value_bytes = 100;             ///< size of a value
    std::size_t kept_sessions = 0;             ///< newest sessions of a worker whose records stay; 0: all stay
    std::size_t long_session_every = 25;       ///< every so many sessions one stays open for two epochs; 0: never
};

struct engine_result {
    std::uint64_t sessions = 0;
    std::uint64_t records = 0;
    std::uint64_t acknowledged_records = 0;
    std::uint64_t propagated_records = 0;
};

class engine {
public:
    /// Opens the data location and recovers it; the numbering of the records goes on where it ended.
    explicit engine(engine_options options);

    /// Runs for the configured time, then waits until all that was written is acknowledged, by the
    /// replica too if there is one. Throws `std::runtime_error` when that does not happen within ten seconds.
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
        std::uint64_t oldest_sequence = 0;
        std::uint64_t sessions = 0;
        std::uint64_t records = 0;
    };

    // Acknowledges the sessions that have reached one state.
    class ledger {
    public:
        ledger(std::string const& file, std::size_t workers) : writer_(file), accounts_(workers) {}
        void expect(worker const& worker, pending_session session);
        void acknowledge(limestone::api::epoch_id_type epoch, std::size_t session_records);
        [[nodiscard]] bool settled();
        [[nodiscard]] std::uint64_t records() const noexcept { return records_; }
        [[nodiscard]] limestone::api::epoch_id_type epoch() const noexcept { return epoch_; }

    private:
        acknowledgement_writer writer_;
        std::mutex mutex_;  // the callback runs on the epoch thread, on workers and on threads of the library
        std::vector<std::deque<pending_session>> accounts_;
        std::atomic<std::uint64_t> records_{0};
        std::atomic<limestone::api::epoch_id_type> epoch_{0};
    };

    void find_next_sequences();
    void advance_epochs();
    void work(worker& self);
    void commit_session(worker& self);
    void remove_old(worker& self, limestone::api::epoch_id_type epoch);
    void reached(limestone::api::epoch_id_type epoch, limestone::api::durability state);
    [[nodiscard]] bool everything_acknowledged();
    void report() const;

    engine_options options_;
    ledger stored_;
    std::unique_ptr<ledger> propagated_;  // only with a replica
    std::vector<worker> workers_;
    limestone::api::datastore datastore_;
    std::atomic<limestone::api::epoch_id_type> epoch_{0};
    std::atomic<bool> stop_workers_{false};
    std::atomic<bool> stop_epochs_{false};
};

/// A datastore configuration for a directory, everything else at its default.
limestone::api::configuration make_configuration(std::string const& directory);

}  // namespace mini_engine
