// SPDX-License-Identifier: Apache-2.0
// How long an epoch takes to become durable while the workers commit session after session.
//
// Both sides run four threads that commit back to back and an epoch thread that closes the epoch every few milliseconds
// and notes the time; the latency of an epoch ends when it is reported. The floor keeps the same rule with bare system
// calls: an epoch is recorded as soon as no session of it or of an earlier one is open.
#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "commit.h"
#include "measure.h"

namespace bench {

namespace {

// When epochs were closed and reported. Epochs are counted from 0 here.
class epoch_times {
public:
    explicit epoch_times(std::size_t epochs) : closed_(epochs) { latencies_.reserve(epochs); }
    void closed(std::size_t epoch) { closed_.at(epoch).store(now_seconds()); }
    // Calls must not overlap.
    void reported(std::size_t epoch) {
        auto const now = now_seconds();
        for (; next_ <= epoch && next_ < closed_.size(); ++next_) {
            latencies_.push_back(now - closed_[next_]);
        }
    }
    [[nodiscard]] double median_us() const { return median(latencies_) * 1e6; }

private:
    std::vector<std::atomic<double>> closed_;
    std::vector<double> latencies_;
    std::size_t next_ = 0;
};

// Runs workers until `close_epoch(0)` to `close_epoch(epochs - 1)` were called, one epoch length apart.
void run_epochs(std::size_t workers, std::size_t epochs, std::chrono::milliseconds length,
                std::function<std::function<void()>(std::size_t)> const& make_commit,
                std::function<void(std::size_t)> const& close_epoch) {
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < workers; ++i) {
        threads.emplace_back([&, i] {
            auto const commit = make_commit(i);
            while (!stop) {
                commit();
            }
        });
    }
    auto next = std::chrono::steady_clock::now();
    for (std::size_t epoch = 0; epoch < epochs; ++epoch) {
        next = std::max(next + length, std::chrono::steady_clock::now());
        std::this_thread::sleep_until(next);
        close_epoch(epoch);
    }
    stop = true;
    for (auto& thread : threads) {
        thread.join();
    }
}

// The rule of group commit with nothing around it.
class bare_commit {
public:
    bare_commit(std::string const& directory, std::size_t workers, std::size_t entries, epoch_times& times)
        : session_(session_bytes(entries), 'v'),
          record_(epoch_record_bytes, 'e'),
          record_file_(directory + "/floor_epoch", O_WRONLY | O_CREAT | O_APPEND),
          open_epochs_(workers),
          times_(times) {
        for (std::size_t i = 0; i < workers; ++i) {
            open_epochs_[i] = none;
            logs_.push_back(
                std::make_unique<file>(directory + "/floor_" + std::to_string(i), O_WRONLY | O_CREAT | O_APPEND));
        }
    }
    void commit(std::size_t i) {
        do {
            open_epochs_[i] = epoch_.load();
        } while (open_epochs_[i] != epoch_);
        logs_[i]->write(session_);
        logs_[i]->sync_data();
        open_epochs_[i] = none;
        complete();
    }
    void close_epoch() {
        ++epoch_;
        complete();
    }

private:
    static constexpr std::uint64_t none = std::numeric_limits<std::uint64_t>::max();

    // Epochs below `end` are complete.
    void complete() {
        std::uint64_t end = epoch_;
        for (auto const& open : open_epochs_) {
            end = std::min(end, open.load());
        }
        if (end <= complete_) {
            return;
        }
        std::lock_guard const lock(mutex_);
        if (end <= complete_) {
            return;
        }
        record_file_.write(record_);
        record_file_.sync_data();
        complete_ = end;
        times_.reported(end - 1);
    }

    std::string session_;
    std::string record_;
    file record_file_;
    std::vector<std::unique_ptr<file>> logs_;
    std::vector<std::atomic<std::uint64_t>> open_epochs_;
    std::atomic<std::uint64_t> epoch_{0};
    std::atomic<std::uint64_t> complete_{0};
    std::mutex mutex_;
    epoch_times& times_;
};

}  // namespace

fields epoch_load(options const& given) {
    auto const workers = given.number("--channels", 4);
    auto const entries = given.number("--entries", 10);
    auto const epochs = given.number("--rounds", 400);
    std::chrono::milliseconds const length(given.number("--epoch-ms", 3));

    epoch_times times(epochs);
    constexpr limestone::api::epoch_id_type first = 1;  // of a fresh directory
    open_datastore store(given.text("--dir"), workers,
                         [&times](limestone::api::epoch_id_type epoch) { times.reported(epoch - first); });
    run_epochs(
        workers, epochs, length,
        [&](std::size_t i) {
            return [writer = entry_writer(store.channel(i), i), entries]() mutable { writer.commit(entries); };
        },
        [&](std::size_t epoch) {
            times.closed(epoch);
            store.next_epoch();
        });
    return {{"us", times.median_us()}};
}

fields epoch_load_floor(options const& given) {
    auto const workers = given.number("--channels", 4);
    auto const epochs = given.number("--rounds", 400);
    epoch_times times(epochs);
    bare_commit floor(given.text("--dir"), workers, given.number("--entries", 10), times);
    run_epochs(
        workers, epochs, std::chrono::milliseconds(given.number("--epoch-ms", 3)),
        [&](std::size_t i) { return [&floor, i] { floor.commit(i); }; },
        [&](std::size_t epoch) {
            times.closed(epoch);
            floor.close_epoch();
        });
    return {{"us", times.median_us()}};
}

}  // namespace bench
