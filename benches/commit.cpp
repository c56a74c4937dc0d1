// SPDX-License-Identifier: Apache-2.0
// The cost of an entry, and the rate of sessions.
#include "commit.h"

#include <fcntl.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "measure.h"

namespace bench {

namespace {

// Runs `body(i)` on `count` threads and waits for all of them.
void on_threads(std::size_t count, std::function<void(std::size_t)> const& body) {
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < count; ++i) {
        threads.emplace_back(body, i);
    }
    for (auto& thread : threads) {
        thread.join();
    }
}

// Runs `once(i)` on `count` threads until the time is over; returns how often per second it ran in all.
fields rate(std::size_t count, double seconds, std::function<std::function<void()>(std::size_t)> const& make) {
    std::atomic<std::uint64_t> total{0};
    auto const cpu_begin = cpu_seconds();
    auto const begin = now_seconds();
    on_threads(count, [&](std::size_t i) {
        auto const once = make(i);
        std::uint64_t done = 0;
        while (now_seconds() - begin < seconds) {
            once();
            ++done;
        }
        total += done;
    });
    auto const elapsed = now_seconds() - begin;
    return {{"per_second", static_cast<double>(total) / elapsed},
            {"total", static_cast<double>(total)},
            {"cpu_seconds", cpu_seconds() - cpu_begin}};
}

}  // namespace

// CPU time of the whole process per entry: encoding, session ends, the epoch thread, the clock. To be run on a memory
// file system, where the device adds nothing.
fields add_entry(options const& given) {
    auto const channels = given.number("--channels", 4);
    auto const entries = given.number("--entries", 100);
    auto const sessions = given.number("--sessions", 5000);
    open_datastore store(given.text("--dir"), channels);
    epoch_thread const epochs(store, std::chrono::milliseconds(3));
    auto const cpu_begin = cpu_seconds();
    auto const begin = now_seconds();
    on_threads(channels, [&](std::size_t i) {
        entry_writer writer(store.channel(i), i);
        for (std::uint64_t session = 0; session < sessions; ++session) {
            writer.commit(entries);
        }
    });
    auto const total = static_cast<double>(channels * entries * sessions);
    return {{"cpu_ns_per_entry", (cpu_seconds() - cpu_begin) * 1e9 / total},
            {"wall_ns_per_entry", (now_seconds() - begin) * 1e9 / total}};
}

// Sessions per second, one thread per channel, each session ended before the next begins.
fields sessions(options const& given) {
    auto const channels = given.number("--channels", 1);
    auto const entries = given.number("--entries", 10);
    open_datastore store(given.text("--dir"), channels);
    epoch_thread const epochs(store, std::chrono::milliseconds(given.number("--epoch-ms", 3)));
    return rate(channels, given.real("--seconds", 1), [&](std::size_t i) {
        return [writer = entry_writer(store.channel(i), i), entries]() mutable { writer.commit(entries); };
    });
}

// What a session cannot avoid: its bytes are appended to an open file, and the file is synced.
fields sessions_floor(options const& given) {
    auto const directory = given.text("--dir");
    std::string const bytes(session_bytes(given.number("--entries", 10)), 'v');
    return rate(given.number("--channels", 1), given.real("--seconds", 1), [&](std::size_t i) {
        auto log = std::make_shared<file>(directory + "/floor_" + std::to_string(i), O_WRONLY | O_CREAT | O_APPEND);
        return [log, &bytes] {
            log->write(bytes);
            log->sync_data();
        };
    });
}

}  // namespace bench
