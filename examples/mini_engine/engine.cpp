// SPDX-License-Identifier: Apache-2.0
#include "engine.h"

#include <limestone/api/configuration.h>
#include <limestone/api/cursor.h>
#include <limestone/api/log_channel.h>
#include <limestone/api/snapshot.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <utility>

#include "records.h"

namespace mini_engine {

namespace {

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
      acknowledgements_(options_.acknowledgement_file),
      datastore_(make_configuration(options_.directory)) {
    // Channels and the callback come before ready().
    for (std::size_t i = 0; i < options_.workers; ++i) {
        auto& worker = workers_.emplace_back();
        worker.id = i;
        worker.channel = &datastore_.create_channel();
    }
    datastore_.add_persistent_callback([this](epoch_id_type epoch) { acknowledge(epoch); });
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
        if (cursor->storage() != newest_storage) {
            continue;
        }
        cursor->key(key);
        cursor->value(value);
        auto const worker = parse_number(key);
        auto const newest = parse_number(value);
        if (!worker || !newest) {
            throw std::runtime_error("not a directory of the mini engine: entry `" + key + "` in storage 2");
        }
        if (*worker < workers_.size()) {
            workers_[*worker].next_sequence = *newest + 1;
        }
    }
}

engine_result engine::run() {
    std::thread epoch_thread([this] { advance_epochs(); });
    std::vector<std::thread> threads;
    for (auto& worker : workers_) {
        threads.emplace_back([this, &worker] { work(worker); });
    }
    std::this_thread::sleep_for(options_.duration);
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
        result.acknowledged_records += worker.acknowledged_records;
    }
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
    {
        // Registered before the session ends: end_session() itself may bring the callback that acknowledges it.
        std::lock_guard lock(self.pending_mutex);
        self.pending.push_back({epoch, last});
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
    channel.end_session();
    self.next_sequence = last + 1;
    ++self.sessions;
    self.records += options_.session_records;
}

// Runs as the persistent callback, one call at a time.
void engine::acknowledge(epoch_id_type durable_epoch) {
    for (auto& worker : workers_) {
        std::uint64_t sessions = 0;
        std::uint64_t last_sequence = 0;
        {
            std::lock_guard lock(worker.pending_mutex);
            while (!worker.pending.empty() && worker.pending.front().epoch <= durable_epoch) {
                last_sequence = worker.pending.front().last_sequence;
                worker.pending.pop_front();
                ++sessions;
            }
            worker.acknowledged_records += sessions * options_.session_records;
        }
        if (sessions > 0) {
            acknowledgements_.write(worker.id, last_sequence, durable_epoch);
        }
    }
}

bool engine::everything_acknowledged() {
    return std::all_of(workers_.begin(), workers_.end(), [](worker& worker) {
        std::lock_guard lock(worker.pending_mutex);
        return worker.pending.empty();
    });
}

}  // namespace mini_engine
