// SPDX-License-Identifier: Apache-2.0
// Online compaction of a directory, alone and beside writers. It changes the directory.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "commit.h"
#include "measure.h"

namespace bench {

namespace {

constexpr std::chrono::milliseconds epoch_length{3};

}  // namespace

fields compact(options const& given) {
    open_datastore store(given.text("--dir"), 4);
    epoch_thread const epochs(store, epoch_length);
    auto const begin = now_seconds();
    store.compact();
    return {{"seconds", now_seconds() - begin}};
}

// Sessions per second while a compaction runs, and in a time of the same length before it.
fields compact_beside_writers(options const& given) {
    auto const workers = given.number("--channels", 4);
    auto const entries = given.number("--entries", 10);
    auto const alone_seconds = given.real("--seconds", 1);
    open_datastore store(given.text("--dir"), workers);
    epoch_thread const epochs(store, epoch_length);
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> sessions{0};
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < workers; ++i) {
        threads.emplace_back([&, i] {
            entry_writer writer(store.channel(i), i);
            while (!stop) {
                writer.commit(entries);
                ++sessions;
            }
        });
    }
    auto const rate = [&](auto const& during) {
        auto const before = sessions.load();
        auto const begin = now_seconds();
        during();
        return static_cast<double>(sessions - before) / (now_seconds() - begin);
    };
    auto const wait = [&] { std::this_thread::sleep_for(std::chrono::duration<double>(alone_seconds)); };
    wait();  // until the files and the threads are warm
    auto const alone_before = rate(wait);
    auto const beside = rate([&] { store.compact(); });
    auto const alone_after = rate(wait);
    stop = true;
    for (auto& thread : threads) {
        thread.join();
    }
    return {{"per_second", beside}, {"alone_per_second", (alone_before + alone_after) / 2}};
}

}  // namespace bench
