// SPDX-License-Identifier: Apache-2.0
// What replication to a process on the same machine costs, and how fast a replica that fell behind catches up.
//
// The load is a fixed amount of sessions on some channels while an epoch thread closes epochs; a run lasts until the
// last epoch has reached the state that the engine waits for: STORED without replication and with mode `async`,
// PROPAGATED with mode `strict`.
#include <fcntl.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "commit.h"
#include "journaled_datastore.h"
#include "measure.h"
#include "replica_process.h"

namespace bench {

using limestone::api::durability;

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
