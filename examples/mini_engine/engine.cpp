// SPDX-License-Identifier: Apache-2.0
#include "engine.h"

#include <limestone/api/configuration.h>
#include <limestone/api/cursor.h>
#include <limestone/api/log_channel.h>
#include <limestone/api/snapshot.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <utility>

#include "records.h"

namespace mini_engine {

namespace {

using limestone::api::durability;
using limestone::api::epoch_id_type;
using clock = std::chrono::steady_clock;

constexpr std::chrono::seconds acknowledgement_deadline{10};

}  // namespace

limestone::api::configuration make_configuration(std::string const& directory) {
    limestone::api::configuration configuration;
    configuration.set_data_location(directory);
    return configuration;
}

engine::engine(engine_options options)
    : options_(std::move(options)),
      stored_(options_.acknowledgement_file, options_.workers),
      workers_(options_.workers),
      datastore_(make_configuration(options_.directory)) {
    if (!options_.propagated_file.empty()) {
        propagated_ = std::make_unique<ledger>(options_.propagated_file, options_.workers);
    }
    // Channels and the callback come before ready().
    for (std::size_t i = 0; i < options_.workers; ++i) {
        workers_[i].id = i;
        workers_[i].channel = &datastore_.create_channel();
    }
    datastore_.add_persistent_callback([this](epoch_id_type epoch, durability state) { reached(epoch, state); });
    datastore_.recover();
    datastore_.ready();
    find_next_sequences();
    // Epochs up to last_epoch() are already recorded as durable: nothing may be logged in them any more.
    epoch_ = datastore_.last_epoch() + 1;
    datastore_.switch_epoch(epoch_);
}

void engine::find_next_sequences() {
    auto const snapshot = datastore_.get_snapshot();
    auto const cursor = snapshot->get_cursor();
    std::string key;
    std::string value;
    while (cursor->next()) {
        if (cursor->storage() != newest_storage && cursor->storage() != oldest_storage) {
            continue;
        }
        cursor->key(key);
        cursor->value(value);
        auto const worker = parse_number(key);
        auto const sequence = parse_number(value);
        if (!worker || !sequence) {
            throw std::runtime_error("not a directory of the mini engine: entry `" + key + "` in storage " +
                                     std::to_string(cursor->storage()));
        }
        if (*worker < workers_.size()) {
            if (cursor->storage() == newest_storage) {
                workers_[*worker].next_sequence = *sequence + 1;
            } else {
                workers_[*worker].oldest_sequence = *sequence;
            }
        }
    }
}

engine_result engine::run() {
    std::thread epoch_thread([this] { advance_epochs(); });
    std::vector<std::thread> threads;
    for (auto& worker : workers_) {
        threads.emplace_back([this, &worker] { work(worker); });
    }
    auto const end = clock::now() + options_.duration;
    if (options_.report.count() > 0) {
        for (auto next = clock::now() + options_.report; next < end; next += options_.report) {
            std::this_thread::sleep_until(next);
            report();
        }
    }
    std::this_thread::sleep_until(end);
    stop_workers_ = true;
    for (auto& thread : threads) {
        thread.join();
    }
    auto const deadline = clock::now() + acknowledgement_deadline;
    bool acknowledged = everything_acknowledged();
    while (!acknowledged && clock::now() < deadline) {
        std::this_thread::sleep_for(options_.epoch);
        acknowledged = everything_acknowledged();
    }
    stop_epochs_ = true;
    epoch_thread.join();
    datastore_.shutdown().get();
    if (!acknowledged) {
        throw std::runtime_error("sessions without acknowledgement ten seconds after the last commit");
    }
    engine_result result;
    for (auto const& worker : workers_) {
        result.sessions += worker.sessions;
        result.records += worker.records;
    }
    result.acknowledged_records = stored_.records();
    result.propagated_records = propagated_ ? propagated_->records() : 0;
    return result;
}

void engine::advance_epochs() {
    auto next = clock::now();
    while (!stop_epochs_) {
        // Late ticks are not made up for: an epoch has a minimum length.
        next = std::max(next + options_.epoch, clock::now());
        std::this_thread::sleep_until(next);
        datastore_.switch_epoch(++epoch_);
    }
}

void engine::work(worker& self) {
    while (!stop_workers_) {
        commit_session(self);
    }
}

void engine::commit_session(worker& self) {
    auto& channel = *self.channel;
    auto const first = self.next_sequence;
    auto const last = first + options_.session_records - 1;
    channel.begin_session();
    // The session belongs to this epoch, whatever the epoch thread does meanwhile.
    epoch_id_type const epoch = channel.current_epoch_id();
    // Registered before the session ends: end_session() itself may bring the callback that acknowledges it.
    stored_.expect(self, {epoch, last});
    if (propagated_) {
        propagated_->expect(self, {epoch, last});
    }
    for (auto sequence = first; sequence <= last; ++sequence) {
        record_id const id{self.id, sequence, first, options_.session_records};
        channel.add_entry(records_storage, record_key(self.id, sequence), record_value(id, options_.value_bytes),
                          {epoch, sequence});
    }
    if (options_.long_session_every > 0 && self.sessions % options_.long_session_every == 0) {
        // Epochs are closed over the open session; none of them may be reported before it has ended.
        std::this_thread::sleep_for(2 * options_.epoch);
    }
    channel.add_entry(newest_storage, std::to_string(self.id), std::to_string(last), {epoch, last});
    self.next_sequence = last + 1;
    if (options_.kept_sessions > 0) {
        remove_old(self, epoch);
    }
    channel.end_session();
    ++self.sessions;
    self.records += options_.session_records;
}

// Removes the records of the sessions that are too old, in the session that is open.
void engine::remove_old(worker& self, epoch_id_type epoch) {
    auto& channel = *self.channel;
    auto const kept = options_.kept_sessions * options_.session_records;
    auto const last = self.next_sequence - 1;
    for (; self.oldest_sequence + kept < self.next_sequence; ++self.oldest_sequence) {
        channel.remove_entry(records_storage, record_key(self.id, self.oldest_sequence), {epoch, last});
    }
    channel.add_entry(oldest_storage, std::to_string(self.id), std::to_string(self.oldest_sequence), {epoch, last});
}

// Runs as the persistent callback, one call at a time.
void engine::reached(epoch_id_type epoch, durability state) {
    if (state == durability::stored) {
        stored_.acknowledge(epoch, options_.session_records);
    } else if (propagated_) {
        propagated_->acknowledge(epoch, options_.session_records);
    }
}

void engine::ledger::expect(worker const& worker, pending_session session) {
    std::lock_guard lock(mutex_);
    accounts_[worker.id].push_back(session);
}

void engine::ledger::acknowledge(epoch_id_type epoch, std::size_t session_records) {
    std::lock_guard lock(mutex_);
    for (std::size_t worker = 0; worker < accounts_.size(); ++worker) {
        auto& pending = accounts_[worker];
        std::uint64_t sessions = 0;
        std::uint64_t last_sequence = 0;
        while (!pending.empty() && pending.front().epoch <= epoch) {
            last_sequence = pending.front().last_sequence;
            pending.pop_front();
            ++sessions;
        }
        if (sessions > 0) {
            records_ += sessions * session_records;
            writer_.write(worker, last_sequence, epoch);
        }
    }
    epoch_ = epoch;
}

bool engine::ledger::settled() {
    std::lock_guard lock(mutex_);
    return std::all_of(accounts_.begin(), accounts_.end(), [](auto const& pending) { return pending.empty(); });
}

bool engine::everything_acknowledged() {
    return stored_.settled() && (!propagated_ || propagated_->settled());
}

void engine::report() const {
    epoch_id_type const stored = stored_.epoch();
    epoch_id_type const propagated = propagated_ ? propagated_->epoch() : 0;
    std::printf("switched=%llu stored=%llu propagated=%llu lag=%llu\n", static_cast<unsigned long long>(epoch_),
                static_cast<unsigned long long>(stored), static_cast<unsigned long long>(propagated),
                static_cast<unsigned long long>(stored > propagated ? stored - propagated : 0));
    std::fflush(stdout);
}

}  // namespace mini_engine
