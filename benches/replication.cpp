// SPDX-License-Identifier: Apache-2.0
// What replication to a process on the same machine costs, and how fast a replica that fell behind catches up.
//
// The load is a fixed amount of sessions on some channels while an epoch thread closes epochs; a run lasts until the
// last epoch has reached the state that the engine waits for: STORED without replication and with mode `async`,
// PROPAGATED with mode `strict`.
#include <fcntl.h>
#include <limestone/api/durability.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "commit.h"
#include "measure.h"
#include "replica_process.h"

namespace bench {

namespace {

using limestone::api::durability;
using limestone::api::epoch_id_type;

// When epochs were closed and when they reached each state.
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
    // What was closed before does not count: some of it waited for the connections to be made.
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

// A datastore whose epochs are written down.
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
    // Waits until every replica gets what is written as it comes.
    void wait_for_replicas() const {
        auto const deadline = now_seconds() + 60;
        while (count(R"("state":"streaming")") < count(R"("state":")")) {
            if (now_seconds() > deadline) {
                throw std::runtime_error("not all replicas are there after a minute: " + query_status(datastore_));
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    }
    // One thread at a time. Returns the closed epoch.
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

// Writes `sessions` sessions per channel from as many threads; `pause` between two of them.
void write_sessions(journaled_datastore& store, std::size_t channels, std::size_t sessions, std::size_t entries,
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

}  // namespace

fields replicated_load(options const& given) {
    auto const channels = given.number("--channels", 4);
    auto const entries = given.number("--entries", 1000);
    auto const sessions = given.number("--sessions", 500);
    std::chrono::milliseconds const epoch_length(given.number("--epoch-ms", 3));
    std::chrono::microseconds const pause(given.number("--pause-us", 0));
    auto const mode = given.text("--mode");
    auto const directory = given.text("--dir");

    auto const count = given.number("--replicas", 1);
    auto const quorum = given.number("--quorum", count);

    std::vector<std::unique_ptr<replica_process>> replicas;
    if (mode != "none") {
        for (std::uint64_t i = 0; i < count; ++i) {
            replicas.push_back(std::make_unique<replica_process>(directory + "/replica" + std::to_string(i)));
        }
        point_primary_at(replicas, quorum, mode);
    }
    journaled_datastore store(directory + "/primary", channels);
    if (!replicas.empty()) {
        // The connections are made before the clock starts.
        write_sessions(store, channels, 1, 1, epoch_length);
        store.journal().wait_for(store.next_epoch(), durability::propagated);
        store.wait_for_replicas();
    }
    if (given.number("--stopped", 0) != 0) {
        replicas.back()->hold(true);
    }
    store.journal().measure_from_here();
    auto const cpu = cpu_seconds();
    auto const begin = now_seconds();
    write_sessions(store, channels, sessions, entries, epoch_length, pause);
    auto const last = store.next_epoch();
    store.journal().wait_for(last, mode == "strict" ? durability::propagated : durability::stored);
    auto const seconds = now_seconds() - begin;
    auto const spent = cpu_seconds() - cpu;
    auto const written = static_cast<double>(channels * sessions * entries);
    return {{"mb_per_second", written * (key_bytes + value_bytes) / seconds / 1e6},
            {"cpu_ns_per_entry", spent / written * 1e9},
            {"stored_us", store.journal().median_us(durability::stored)},
            {"propagated_us", store.journal().median_us(durability::propagated)}};
}

fields catch_up(options const& given) {
    auto const channels = given.number("--channels", 4);
    auto const entries = given.number("--entries", 1000);
    auto const bytes = given.number("--bytes", 1'000'000'000);
    auto const directory = given.text("--dir");
    std::chrono::milliseconds const epoch_length(given.number("--epoch-ms", 3));
    auto const sessions = bytes / channels / session_bytes(entries) + 1;

    // The replica is there for the first sessions, then away, then back.
    auto replica = std::make_unique<replica_process>(directory + "/replica");
    replica->point_primary_here("async");
    journaled_datastore store(directory + "/primary", channels);
    write_sessions(store, channels, 1, 1, epoch_length);
    store.journal().wait_for(store.next_epoch(), durability::propagated);
    auto const port = replica->port();
    replica.reset();
    write_sessions(store, channels, sessions, entries, epoch_length);
    auto const missed = store.next_epoch();
    store.journal().wait_for(missed, durability::stored);

    // The same bytes copied by this process: what is the least that has to be done.
    auto const copy = [&] {
        auto const begin = now_seconds();
        std::size_t copied = 0;
        std::vector<char> buffer(1U << 20U);
        for (std::size_t i = 0; i < channels; ++i) {
            auto const name = "/pwal_000" + std::to_string(i);
            file const from(directory + "/primary" + name, O_RDONLY);
            file const to(directory + name + ".copy", O_WRONLY | O_CREAT | O_TRUNC);
            for (;;) {
                auto const count = check(::read(from.descriptor(), buffer.data(), buffer.size()), "read");
                if (count == 0) {
                    break;
                }
                to.write({buffer.data(), static_cast<std::size_t>(count)});
                copied += static_cast<std::size_t>(count);
            }
            to.sync_data();
            std::filesystem::remove(directory + name + ".copy");
        }
        return static_cast<double>(copied) / (now_seconds() - begin) / 1e6;
    };
    auto const copied_before = copy();

    std::atomic<bool> caught_up{false};
    std::thread writing([&] {
        while (!caught_up) {
            write_sessions(store, channels, 1, 10, epoch_length);
        }
    });
    auto const begin = now_seconds();
    replica = std::make_unique<replica_process>(directory + "/replica", port);
    store.journal().wait_for(missed, durability::propagated);
    auto const seconds = now_seconds() - begin;
    caught_up = true;
    writing.join();
    auto const copied_after = copy();
    auto const caught = static_cast<double>(sessions * channels * session_bytes(entries)) / seconds / 1e6;
    return {{"mb_per_second", caught}, {"copy_mb_per_second", (copied_before + copied_after) / 2}};
}

}  // namespace bench
