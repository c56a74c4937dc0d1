// SPDX-License-Identifier: Apache-2.0
// Sessions as the commit benchmarks write them.
#pragma once

#include <limestone/api/configuration.h>
#include <limestone/api/datastore.h>
#include <limestone/api/log_channel.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "measure.h"

namespace bench {

/// Bytes that a session of so many entries adds to its log file.
constexpr std::size_t session_bytes(std::size_t entries) {
    return session_begin_bytes + entries * entry_bytes + session_end_bytes;
}

/// Adds entries with new keys to the open session of a channel.
class entry_writer {
public:
    entry_writer(limestone::api::log_channel& channel, std::uint64_t id) : channel_(channel) {
        std::memcpy(key_.data(), &id, sizeof(id));
        value_.fill('v');
    }
    void add(std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) {
            ++written_;
            std::memcpy(key_.data() + sizeof(written_), &written_, sizeof(written_));
            channel_.add_entry(1, {key_.data(), key_.size()}, {value_.data(), value_.size()}, {1, written_});
        }
    }
    void commit(std::size_t count) {
        channel_.begin_session();
        add(count);
        channel_.end_session();
    }

private:
    limestone::api::log_channel& channel_;
    std::uint64_t written_ = 0;
    std::array<char, key_bytes> key_{};
    std::array<char, value_bytes> value_{};
};

/// A datastore with some channels, ready for sessions.
class open_datastore {
public:
    using persistent_callback = std::function<void(limestone::api::epoch_id_type)>;

    open_datastore(std::string const& directory, std::size_t channel_count, persistent_callback callback = nullptr)
        : datastore_(make_configuration(directory)) {
        if (callback) {
            datastore_.add_persistent_callback(std::move(callback));
        }
        for (std::size_t i = 0; i < channel_count; ++i) {
            channels_.push_back(&datastore_.create_channel());
        }
        datastore_.ready();
        epoch_ = datastore_.last_epoch();
        next_epoch();
    }
    ~open_datastore() {
        next_epoch();
        datastore_.shutdown().get();
    }
    open_datastore(open_datastore const&) = delete;
    open_datastore& operator=(open_datastore const&) = delete;
    open_datastore(open_datastore&&) = delete;
    open_datastore& operator=(open_datastore&&) = delete;

    [[nodiscard]] limestone::api::log_channel& channel(std::size_t i) { return *channels_.at(i); }
    [[nodiscard]] limestone::api::epoch_id_type epoch() const noexcept { return epoch_; }
    void next_epoch() { datastore_.switch_epoch(++epoch_); }
    void compact() { datastore_.compact_with_online(); }

private:
    static limestone::api::configuration make_configuration(std::string const& directory) {
        limestone::api::configuration configuration;
        configuration.set_data_location(directory);
        return configuration;
    }

    limestone::api::datastore datastore_;
    std::vector<limestone::api::log_channel*> channels_;
    limestone::api::epoch_id_type epoch_ = 0;
};

/// Switches the epoch at regular times until it is destroyed. A length of 0 means never.
class epoch_thread {
public:
    epoch_thread(open_datastore& store, std::chrono::milliseconds length) {
        if (length.count() > 0) {
            thread_ = std::thread([this, &store, length] {
                auto next = std::chrono::steady_clock::now();
                while (!stop_) {
                    next += length;
                    std::this_thread::sleep_until(next);
                    store.next_epoch();
                }
            });
        }
    }
    ~epoch_thread() {
        stop_ = true;
        if (thread_.joinable()) {
            thread_.join();
        }
    }
    epoch_thread(epoch_thread const&) = delete;
    epoch_thread& operator=(epoch_thread const&) = delete;
    epoch_thread(epoch_thread&&) = delete;
    epoch_thread& operator=(epoch_thread&&) = delete;

private:
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

}  // namespace bench
