// SPDX-License-Identifier: Apache-2.0
// A datastore that replicates as the environment says, and when its epochs reach which state.
#pragma once

#include <limestone/api/configuration.h>
#include <limestone/api/datastore.h>
#include <limestone/api/durability.h>
#include <limestone/api/log_channel.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "commit.h"
#include "measure.h"

namespace bench {

using limestone::api::durability;
using limestone::api::epoch_id_type;

/// When epochs were closed and when they reached each state.
class epoch_journal {
public:
    void closed(epoch_id_type epoch) {
        std::lock_guard const lock(mutex_);
        closed_.push_back({epoch, now_seconds()});
    }
    void reached(epoch_id_type epoch, durability state) {
        auto const now = now_seconds();
        std::lock_guard const lock(mutex_);
        auto& progress = state == durability::stored ? stored_ : propagated_;
        for (; progress.next < closed_.size() && closed_[progress.next].epoch <= epoch; ++progress.next) {
            progress.latencies.push_back(now - closed_[progress.next].time);
        }
        progress.epoch = std::max(progress.epoch, epoch);
        changed_.notify_all();
    }
    void wait_for(epoch_id_type epoch, durability state) {
        std::unique_lock lock(mutex_);
        auto const& progress = state == durability::stored ? stored_ : propagated_;
        if (!changed_.wait_for(lock, std::chrono::minutes(5), [&] { return progress.epoch >= epoch; })) {
            throw std::runtime_error("epoch " + std::to_string(epoch) + " was not reported within five minutes, only " +
                                     std::to_string(progress.epoch));
        }
    }
    /// What was closed before does not count: some of it waited for the connections to be made.
    void measure_from_here() {
        std::lock_guard const lock(mutex_);
        closed_.clear();
        for (auto* progress : {&stored_, &propagated_}) {
            progress->next = 0;
            progress->latencies.clear();
        }
    }
    double median_us(durability state) {
        std::lock_guard const lock(mutex_);
        auto const& progress = state == durability::stored ? stored_ : propagated_;
        return progress.latencies.empty() ? 0 : median(progress.latencies) * 1e6;
    }

private:
    struct closing {
        epoch_id_type epoch;
        double time;
    };
    struct state_progress {
        epoch_id_type epoch = 0;
        std::size_t next = 0;
        std::vector<double> latencies;
    };

    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<closing> closed_;
    state_progress stored_;
    state_progress propagated_;
};

/// A datastore whose epochs are written down.
class journaled_datastore {
public:
    journaled_datastore(std::string const& directory, std::size_t channel_count) : datastore_(configured(directory)) {
        datastore_.add_persistent_callback(
            [this](epoch_id_type epoch, durability state) { journal_.reached(epoch, state); });
        for (std::size_t i = 0; i < channel_count; ++i) {
            channels_.push_back(&datastore_.create_channel());
        }
        datastore_.ready();
        epoch_ = datastore_.last_epoch();
        next_epoch();
    }
    ~journaled_datastore() { datastore_.shutdown().get(); }
    journaled_datastore(journaled_datastore const&) = delete;
    journaled_datastore& operator=(journaled_datastore const&) = delete;
    journaled_datastore(journaled_datastore&&) = delete;
    journaled_datastore& operator=(journaled_datastore&&) = delete;

    [[nodiscard]] limestone::api::log_channel& channel(std::size_t i) { return *channels_.at(i); }
    [[nodiscard]] epoch_journal& journal() noexcept { return journal_; }
    /// Waits until every replica gets what is written as it comes.
    void wait_for_replicas() const {
        auto const deadline = now_seconds() + 60;
        while (count(R"("state":"streaming")") < count(R"("state":")")) {
            if (now_seconds() > deadline) {
                throw std::runtime_error("not all replicas are there after a minute: " + query_status(datastore_));
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    }
    /// One thread at a time. Returns the closed epoch.
    epoch_id_type next_epoch() {
        journal_.closed(epoch_);
        datastore_.switch_epoch(++epoch_);
        return epoch_ - 1;
    }

private:
    // How often the status says this.
    [[nodiscard]] std::size_t count(std::string const& text) const {
        auto const status = query_status(datastore_);
        std::size_t found = 0;
        for (auto at = status.find(text); at != std::string::npos; at = status.find(text, at + 1)) {
            ++found;
        }
        return found;
    }

    static limestone::api::configuration configured(std::string const& directory) {
        std::filesystem::create_directories(directory);
        limestone::api::configuration configuration;
        configuration.set_data_location(directory);
        return configuration;
    }

    epoch_journal journal_;  // before the store, whose callback uses it
    limestone::api::datastore datastore_;
    std::vector<limestone::api::log_channel*> channels_;
    epoch_id_type epoch_ = 0;
};

/// Writes `sessions` sessions per channel from as many threads; `pause` between two of them.
inline void write_sessions(journaled_datastore& store, std::size_t channels, std::size_t sessions, std::size_t entries,
                           std::chrono::milliseconds epoch_length, std::chrono::microseconds pause = {}) {
    std::atomic<std::size_t> working{channels};
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < channels; ++i) {
        threads.emplace_back([&store, &working, i, sessions, entries, pause] {
            entry_writer writer(store.channel(i), i);
            for (std::size_t session = 0; session < sessions; ++session) {
                writer.commit(entries);
                std::this_thread::sleep_for(pause);
            }
            --working;
        });
    }
    auto next = std::chrono::steady_clock::now();
    while (working > 0) {
        next = std::max(next + epoch_length, std::chrono::steady_clock::now());
        std::this_thread::sleep_until(next);
        store.next_epoch();
    }
    for (auto& thread : threads) {
        thread.join();
    }
}

}  // namespace bench
