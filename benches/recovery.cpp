// SPDX-License-Identifier: Apache-2.0
// Recovery: the generator of the directory, and the measured program, which reads it through the C++ interface.
#include <fcntl.h>
#include <limestone/api/configuration.h>
#include <limestone/api/cursor.h>
#include <limestone/api/datastore.h>
#include <limestone/api/log_channel.h>
#include <limestone/api/snapshot.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "measure.h"

namespace bench {

namespace {

constexpr std::size_t channel_count = 4;
constexpr std::uint64_t session_entries = 1000;

// 16 decimal digits: the keys differ only in their last few bytes, as numbers and names do.
void decimal_key(std::array<char, key_bytes>& key, std::uint64_t number) {
    for (auto digit = key.rbegin(); digit != key.rend(); ++digit) {
        *digit = static_cast<char>('0' + number % 10);
        number /= 10;
    }
}

// Keys that differ in their first bytes.
void random_key(std::array<char, key_bytes>& key, std::uint64_t number) {
    std::array<std::uint64_t, 2> const words{random_numbers(number).next(), number};
    std::memcpy(key.data(), words.data(), key.size());
}

// Highest memory use of this process while it lives, in KiB, by a thread that looks every few milliseconds.
class memory_watch {
public:
    explicit memory_watch(bool enabled) {
        if (enabled) {
            thread_ = std::thread([this] { watch(); });
        }
    }
    ~memory_watch() { stop(); }
    memory_watch(memory_watch const&) = delete;
    memory_watch& operator=(memory_watch const&) = delete;
    memory_watch(memory_watch&&) = delete;
    memory_watch& operator=(memory_watch&&) = delete;

    void stop() {
        stop_ = true;
        if (thread_.joinable()) {
            thread_.join();
        }
    }
    [[nodiscard]] double anonymous_kib() const noexcept { return anonymous_kib_; }
    [[nodiscard]] double private_kib() const noexcept { return private_kib_; }

private:
    void watch() {
        for (unsigned tick = 0; !stop_; ++tick) {
            anonymous_kib_ = std::max(anonymous_kib_, sum("/proc/self/status", {"RssAnon:", "-"}));
            // This one makes the kernel walk all mappings, so it is asked less often. It counts mapped file pages
            // that no other process maps, too.
            if (tick % 20 == 0) {
                private_kib_ =
                    std::max(private_kib_, sum("/proc/self/smaps_rollup", {"Private_Clean:", "Private_Dirty:"}));
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
    }

    static double sum(char const* path, std::array<std::string_view, 2> const& names) {
        std::ifstream status(path);
        std::string line;
        double total = 0;
        while (std::getline(status, line)) {
            for (auto const& name : names) {
                if (line.compare(0, name.size(), name) == 0) {
                    total += std::stod(line.substr(name.size()));
                }
            }
        }
        return total;
    }

    std::atomic<bool> stop_{false};
    double anonymous_kib_ = 0;
    double private_kib_ = 0;
    std::thread thread_;
};

}  // namespace

// `entries` upserts with keys drawn from twice as many: 21.3 % of them are overwritten by later ones.
fields generate(options const& given) {
    auto const entries = given.number("--entries", 2'000'000);
    bool const random = given.number("--random-keys", 0) != 0;
    limestone::api::configuration configuration;
    configuration.set_data_location(given.text("--dir"));
    limestone::api::datastore datastore(configuration);
    std::array<limestone::api::log_channel*, channel_count> channels{};
    for (auto& channel : channels) {
        channel = &datastore.create_channel();
    }
    datastore.ready();

    random_numbers numbers(entries);
    std::array<char, key_bytes> key{};
    std::array<char, value_bytes> value{};
    std::uint64_t written = 0;
    auto epoch = datastore.last_epoch() + 1;
    datastore.switch_epoch(epoch);
    for (std::uint64_t session = 0; written < entries; ++session) {
        auto& channel = *channels[session % channels.size()];
        channel.begin_session();
        for (std::uint64_t i = 0; i < session_entries && written < entries; ++i, ++written) {
            auto const number = numbers.next() % (2 * entries);
            if (random) {
                random_key(key, number);
            } else {
                decimal_key(key, number);
            }
            for (std::size_t offset = 0; offset < value.size(); offset += 4) {
                auto const word = static_cast<std::uint32_t>(written * 2654435761U + offset);
                std::memcpy(value.data() + offset, &word, sizeof(word));
            }
            channel.add_entry(1, {key.data(), key.size()}, {value.data(), value.size()}, {epoch, written});
        }
        channel.end_session();
        if (session % channels.size() == channels.size() - 1) {
            datastore.switch_epoch(++epoch);
        }
    }
    datastore.switch_epoch(++epoch);
    datastore.shutdown().get();
    return {{"entries", static_cast<double>(written)}};
}

// The time runs from before the constructor to the end of the scan.
fields recover(options const& given) {
    memory_watch memory(given.number("--watch-memory", 0) != 0);
    auto const begin = now_seconds();
    limestone::api::configuration configuration;
    configuration.set_data_location(given.text("--dir"));
    limestone::api::datastore datastore(configuration);
    datastore.recover();
    datastore.ready();
    auto const ready = now_seconds();
    std::uint64_t entries = 0;
    std::uint64_t checksum = 0;
    {
        auto const snapshot = datastore.get_snapshot();
        auto const cursor = snapshot->get_cursor();
        std::string key;
        std::string value;
        while (cursor->next()) {
            cursor->key(key);
            cursor->value(value);
            checksum += touch(value.data(), value.size());
            ++entries;
        }
    }
    auto const end = now_seconds();
    memory.stop();
    auto const cpu = cpu_seconds();
    datastore.shutdown().get();
    return {{"seconds", end - begin},
            {"ready_seconds", ready - begin},
            {"scan_seconds", end - ready},
            {"cpu_seconds", cpu},
            {"entries", static_cast<double>(entries)},
            {"checksum", static_cast<double>(checksum)},
            {"anonymous_kib", memory.anonymous_kib()},
            {"private_kib", memory.private_kib()}};
}

}  // namespace bench
