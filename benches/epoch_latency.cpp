// SPDX-License-Identifier: Apache-2.0
// How long an epoch takes to become durable after it was closed.
//
// A round of the library: each of four workers has a session of ten entries open. The epoch thread takes the time,
// calls switch_epoch(), and lets the workers go; each ends its session. The round lasts until the persistent callback
// reports the epoch. It cannot report it earlier: the last bytes of the epoch are written after the switch.
//
// A round of the floor has the same threads and the same signals; each worker writes the bytes of a session to a log of
// its own that it keeps open and calls fdatasync; the last of them appends the epoch record and calls fdatasync.
//
// A round of the single floor is one thread alone that writes and syncs one log, then the record: no four files that
// share a device, no thread to wake.
//
// Rounds start one epoch length apart, in short blocks of each kind in turn, so that all kinds meet the same noise.
#include <fcntl.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "commit.h"
#include "measure.h"

namespace bench {

namespace {

constexpr std::size_t block_rounds = 20;

// A meeting point for a fixed number of threads.
class barrier {
public:
    explicit barrier(std::size_t count) { pthread_barrier_init(&barrier_, nullptr, static_cast<unsigned>(count)); }
    ~barrier() { pthread_barrier_destroy(&barrier_); }
    barrier(barrier const&) = delete;
    barrier& operator=(barrier const&) = delete;
    barrier(barrier&&) = delete;
    barrier& operator=(barrier&&) = delete;
    void wait() { pthread_barrier_wait(&barrier_); }

private:
    pthread_barrier_t barrier_{};
};

class latency_bench {
public:
    explicit latency_bench(options const& given)
        : directory_(given.text("--dir")),
          channels_(given.number("--channels", 4)),
          entries_(given.number("--entries", 10)),
          epoch_length_(given.number("--epoch-ms", 3)),
          session_(session_bytes(entries_), 'v'),
          record_(epoch_record_bytes, 'e'),
          record_file_(directory_ + "/floor_epoch", O_WRONLY | O_CREAT | O_APPEND),
          store_(directory_ + "/library", channels_,
                 [this](limestone::api::epoch_id_type epoch) {
                     if (epoch >= awaited_) {
                         finished_ = now_seconds();
                     }
                 }),
          gate_(channels_ + 1) {
        for (std::size_t i = 0; i < channels_; ++i) {
            logs_.push_back(
                std::make_unique<file>(directory_ + "/floor_" + std::to_string(i), O_WRONLY | O_CREAT | O_APPEND));
            writers_.emplace_back(store_.channel(i), i);
        }
        for (std::size_t i = 0; i < channels_; ++i) {
            threads_.emplace_back([this, i] { work(i); });
        }
    }
    ~latency_bench() {
        task_ = task::stop;
        gate_.wait();
        for (auto& thread : threads_) {
            thread.join();
        }
    }
    latency_bench(latency_bench const&) = delete;
    latency_bench& operator=(latency_bench const&) = delete;
    latency_bench(latency_bench&&) = delete;
    latency_bench& operator=(latency_bench&&) = delete;

    fields run(std::size_t rounds) {
        std::vector<double> library;
        std::vector<double> floor;
        std::vector<double> single;
        block(library, block_rounds, [this] { return library_round(); });  // warm-up, thrown away
        library.clear();
        while (library.size() < rounds) {
            block(library, block_rounds, [this] { return library_round(); });
            block(floor, block_rounds, [this] { return floor_round(); });
            block(single, block_rounds, [this] { return single_round(); });
        }
        return {{"library_us", median(library) * 1e6},
                {"floor_us", median(floor) * 1e6},
                {"single_floor_us", median(single) * 1e6}};
    }

private:
    enum class task { library, floor, stop };

    void block(std::vector<double>& latencies, std::size_t rounds, std::function<double()> const& round) {
        auto next = std::chrono::steady_clock::now();
        for (std::size_t i = 0; i < rounds; ++i) {
            next = std::max(next + epoch_length_, std::chrono::steady_clock::now());
            std::this_thread::sleep_until(next);
            latencies.push_back(round());
        }
    }

    // Returns when the epoch was closed. The gate opens four times per round: task given, all prepared, epoch closed,
    // all done.
    double round(task kind, std::function<void()> const& close_epoch) {
        task_ = kind;
        working_ = channels_;
        finished_ = 0;
        gate_.wait();
        gate_.wait();
        auto const begin = now_seconds();
        close_epoch();
        gate_.wait();
        gate_.wait();
        return begin;
    }

    double library_round() {
        awaited_ = store_.epoch();
        auto const begin = round(task::library, [this] { store_.next_epoch(); });
        // A thread of the library may report the epoch after the last session has ended.
        auto const deadline = begin + 30;
        while (finished_ == 0) {
            if (now_seconds() > deadline) {
                throw std::runtime_error("the epoch was not reported within 30 s of the end of its last session");
            }
            std::this_thread::sleep_for(std::chrono::microseconds(20));
        }
        return finished_ - begin;
    }

    double floor_round() {
        auto const begin = round(task::floor, [] {});
        return finished_ - begin;
    }

    double single_round() {
        auto const begin = now_seconds();
        logs_[0]->write(session_);
        logs_[0]->sync_data();
        record_file_.write(record_);
        record_file_.sync_data();
        return now_seconds() - begin;
    }

    void work(std::size_t i) {
        for (;;) {
            gate_.wait();
            auto const kind = task_;
            if (kind == task::stop) {
                return;
            }
            if (kind == task::library) {
                store_.channel(i).begin_session();
                writers_[i].add(entries_);
            }
            gate_.wait();
            gate_.wait();
            if (kind == task::library) {
                store_.channel(i).end_session();
            } else {
                logs_[i]->write(session_);
                logs_[i]->sync_data();
                if (--working_ == 0) {
                    record_file_.write(record_);
                    record_file_.sync_data();
                    finished_ = now_seconds();
                }
            }
            gate_.wait();
        }
    }

    std::string directory_;
    std::size_t channels_;
    std::size_t entries_;
    std::chrono::milliseconds epoch_length_;
    std::string session_;
    std::string record_;
    std::vector<std::unique_ptr<file>> logs_;
    file record_file_;
    std::atomic<limestone::api::epoch_id_type> awaited_{0};
    std::atomic<double> finished_{0};
    open_datastore store_;  // its callback uses the two above
    std::vector<entry_writer> writers_;
    barrier gate_;
    // Written by the epoch thread before a gate and read behind it.
    task task_ = task::library;
    std::atomic<std::size_t> working_{0};
    std::vector<std::thread> threads_;
};

}  // namespace

fields epoch_latency(options const& given) {
    latency_bench bench(given);
    return bench.run(given.number("--rounds", 400));
}

}  // namespace bench
