// SPDX-License-Identifier: Apache-2.0
// What a commit costs in each way to commit (LIMESTONE_COMMIT): sessions written back to back, a program that uses the
// library as the engine does, and what no way can avoid, one write and one sync of a prepared file.
#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "commit.h"
#include "measure.h"

namespace bench {

namespace {

constexpr std::size_t sampled_of = 16;
// A session that is left open by so many transactions in a row is ended by the daemon.
constexpr std::size_t left_open_of = 64;

double quantile(std::vector<double>& values, double part) {
    if (values.empty()) {
        return 0;
    }
    auto const at = static_cast<std::size_t>(part * static_cast<double>(values.size() - 1));
    std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(at), values.end());
    return values[at] * 1e6;
}

void add_quantiles(fields& result, std::string const& name, std::vector<double>& values) {
    result[name + "_p50_us"] = quantile(values, 0.5);
    result[name + "_p99_us"] = quantile(values, 0.99);
}

// When each epoch was closed and reported.
class epoch_log {
public:
    explicit epoch_log(std::size_t epochs) : closed_(epochs), reported_(epochs) {}
    void closed(std::size_t epoch) { set(closed_, epoch, now_seconds()); }
    // One call at a time, epochs increase.
    void reported(std::size_t epoch) {
        auto const now = now_seconds();
        for (; next_ <= epoch; ++next_) {
            set(reported_, next_, now);
        }
    }
    // 0 while it is not reported.
    [[nodiscard]] double report_time(std::size_t epoch) const {
        return epoch < reported_.size() ? reported_[epoch].load() : 0;
    }
    [[nodiscard]] std::vector<double> latencies() const {
        std::vector<double> result;
        for (std::size_t epoch = 0; epoch < closed_.size(); ++epoch) {
            if (closed_[epoch] > 0 && reported_[epoch] > 0) {
                result.push_back(reported_[epoch] - closed_[epoch]);
            }
        }
        return result;
    }

private:
    static void set(std::vector<std::atomic<double>>& times, std::size_t epoch, double time) {
        if (epoch < times.size()) {
            times[epoch].store(time);
        }
    }
    std::vector<std::atomic<double>> closed_;
    std::vector<std::atomic<double>> reported_;
    std::size_t next_ = 0;
};

struct sample {
    std::size_t epoch;
    double ended;
};

// A channel as the engine has one per worker.
struct engine_channel {
    std::mutex mutex;
    bool open = false;
    std::unique_ptr<entry_writer> writer;
};

class engine {
public:
    explicit engine(options const& given)
        : workers_(given.number("--threads", 4)),
          seconds_(given.real("--seconds", 1)),
          length_(given.number("--epoch-ms", 3)),
          epochs_(static_cast<std::size_t>(seconds_ * 2000 /
                                           static_cast<double>(std::max<std::int64_t>(length_.count(), 1))) +
                  1000),
          store_(given.text("--dir"), workers_, [this](auto epoch) { epochs_.reported(epoch); }),
          channels_(workers_) {
        for (std::size_t i = 0; i < workers_; ++i) {
            channels_[i].writer = std::make_unique<entry_writer>(store_.channel(i), i);
        }
    }

    fields run() {
        std::vector<std::thread> threads;
        auto const begin = now_seconds();
        for (std::size_t i = 0; i < workers_; ++i) {
            threads.emplace_back([this, i, begin] { work(i, begin + seconds_); });
        }
        std::thread daemon([this] { end_idle(); });
        auto next = std::chrono::steady_clock::now();
        while (now_seconds() < begin + seconds_) {
            next += length_;
            std::this_thread::sleep_until(next);
            switch_epoch();
        }
        for (auto& thread : threads) {
            thread.join();
        }
        auto const elapsed = now_seconds() - begin;
        stop_ = true;
        daemon.join();
        switch_epoch();
        switch_epoch();
        return result(elapsed);
    }

private:
    void switch_epoch() {
        std::unique_lock const lock(epoch_lock_);
        auto const before = store_.epoch();
        auto const begin = now_seconds();
        store_.next_epoch();
        switches_.push_back(now_seconds() - begin);
        epochs_.closed(before);
    }

    void work(std::size_t i, double until) {
        std::vector<double> waits;
        std::vector<sample> samples;
        auto& channel = channels_[i];
        std::size_t done = 0;
        for (auto now = now_seconds(); now < until; ++done) {
            std::lock_guard const guard(channel.mutex);
            auto const asked = now_seconds();
            std::shared_lock epoch(epoch_lock_);
            waits.push_back(now_seconds() - asked);
            auto const current = store_.epoch();
            if (!channel.open) {
                store_.channel(i).begin_session();
                channel.open = true;
            }
            epoch.unlock();
            channel.writer->add(1);
            if (done % left_open_of != 0) {
                store_.channel(i).end_session();
                channel.open = false;
            }
            now = now_seconds();
            if (done % sampled_of == 1) {
                samples.push_back({current, now});
            }
        }
        std::lock_guard const guard(results_);
        transactions_ += done;
        waits_.insert(waits_.end(), waits.begin(), waits.end());
        samples_.insert(samples_.end(), samples.begin(), samples.end());
    }

    void end_idle() {
        for (bool last = false; !last;) {
            last = stop_;
            for (std::size_t i = 0; i < workers_; ++i) {
                std::lock_guard const guard(channels_[i].mutex);
                if (channels_[i].open) {
                    store_.channel(i).end_session();
                    channels_[i].open = false;
                }
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    }

    fields result(double elapsed) {
        std::vector<double> latencies;
        for (auto const& sample : samples_) {
            auto const reported = epochs_.report_time(sample.epoch);
            if (reported > 0) {
                latencies.push_back(std::max(0.0, reported - sample.ended));
            }
        }
        fields result{{"per_second", static_cast<double>(transactions_) / elapsed}};
        add_quantiles(result, "lock", waits_);
        add_quantiles(result, "switch", switches_);
        add_quantiles(result, "reported", latencies);
        return result;
    }

    std::size_t workers_;
    double seconds_;
    std::chrono::milliseconds length_;
    epoch_log epochs_;
    open_datastore store_;  // its callback uses the one above
    std::vector<engine_channel> channels_;
    std::shared_mutex epoch_lock_;
    std::vector<double> switches_;
    std::atomic<bool> stop_{false};
    std::mutex results_;
    std::size_t transactions_ = 0;
    std::vector<double> waits_;
    std::vector<sample> samples_;
};

}  // namespace

// Each transaction begins a session, adds one entry and ends the session; some are left to a daemon that ends idle
// ones. The epoch thread switches under a lock that every transaction takes, shared.
fields engine_like(options const& given) {
    engine engine(given);
    return engine.run();
}

// Threads that write session after session, each on a channel of its own.
fields commit_load(options const& given) {
    auto const channels = given.number("--channels", 4);
    auto const entries = given.number("--entries", 10);
    auto const seconds = given.real("--seconds", 1);
    std::chrono::milliseconds const length(given.number("--epoch-ms", 3));
    epoch_log epochs(
        static_cast<std::size_t>(seconds * 2000 / static_cast<double>(std::max<std::int64_t>(length.count(), 1))) +
        1000);
    std::vector<double> ends;
    std::mutex mutex;
    std::atomic<std::uint64_t> total{0};
    fields result;
    {
        open_datastore store(given.text("--dir"), channels, [&](auto epoch) { epochs.reported(epoch); });
        auto const cpu_begin = cpu_seconds();
        auto const begin = now_seconds();
        std::vector<std::thread> threads;
        for (std::size_t i = 0; i < channels; ++i) {
            threads.emplace_back([&, i] {
                entry_writer writer(store.channel(i), i);
                std::vector<double> mine;
                std::uint64_t done = 0;
                for (; now_seconds() - begin < seconds; ++done) {
                    store.channel(i).begin_session();
                    writer.add(entries);
                    auto const asked = now_seconds();
                    store.channel(i).end_session();
                    mine.push_back(now_seconds() - asked);
                }
                total += done;
                std::lock_guard const guard(mutex);
                ends.insert(ends.end(), mine.begin(), mine.end());
            });
        }
        auto next = std::chrono::steady_clock::now();
        while (now_seconds() - begin < seconds) {
            next += length;
            std::this_thread::sleep_until(next);
            auto const before = store.epoch();
            epochs.closed(before);
            store.next_epoch();
        }
        for (auto& thread : threads) {
            thread.join();
        }
        auto const elapsed = now_seconds() - begin;
        auto const written = static_cast<double>(total);
        result["per_second"] = written / elapsed;
        result["mb_per_second"] = written * static_cast<double>(session_bytes(entries)) / elapsed / 1e6;
        result["cpu_ns_per_entry"] = (cpu_seconds() - cpu_begin) * 1e9 / (written * static_cast<double>(entries));
    }
    auto latencies = epochs.latencies();
    result["bytes_per_epoch"] = static_cast<double>(total * session_bytes(entries)) /
                                std::max(1.0, seconds * 1000 / static_cast<double>(length.count()));
    add_quantiles(result, "epoch", latencies);
    add_quantiles(result, "end", ends);
    return result;
}

// What else goes on while groups are written: threads append sessions to files of their own, as many bytes a second as
// were measured, and one more syncs the files whenever so much was appended that a journal would have to let go of it.
class background {
public:
    background(std::string const& directory, std::size_t threads, double bytes_per_second) {
        for (std::size_t i = 0; i < threads; ++i) {
            logs_.push_back(std::make_unique<file>(directory + "/log_" + std::to_string(i), O_RDWR | O_CREAT));
        }
        for (auto const& log : logs_) {
            threads_.emplace_back(
                [this, &log, share = bytes_per_second / static_cast<double>(threads)] { append(*log, share); });
        }
        threads_.emplace_back([this] { settle(); });
    }
    ~background() {
        stop_ = true;
        for (auto& thread : threads_) {
            thread.join();
        }
    }
    background(background const&) = delete;
    background& operator=(background const&) = delete;
    background(background&&) = delete;
    background& operator=(background&&) = delete;

private:
    void append(file const& log, double bytes_per_second) {
        std::string const session(session_bytes(10), 'v');
        auto const begin = now_seconds();
        for (double written = 0; !stop_; written += static_cast<double>(session.size())) {
            // In pieces, as the journal lets them wait.
            if (written > (now_seconds() - begin) * bytes_per_second) {
                std::this_thread::sleep_for(std::chrono::microseconds(500));
            }
            log.write(session);
            appended_ += session.size();
        }
    }

    void settle() {
        constexpr std::size_t enough = 16U << 20U;
        for (std::size_t settled = 0; !stop_; std::this_thread::sleep_for(std::chrono::milliseconds(1))) {
            if (appended_ - settled > enough) {
                settled = appended_;
                for (auto const& log : logs_) {
                    log->sync_data();
                }
            }
        }
    }

    std::vector<std::unique_ptr<file>> logs_;
    std::atomic<std::size_t> appended_{0};
    std::atomic<bool> stop_{false};
    std::vector<std::thread> threads_;
};

// One write and one sync of a file that was written before, every few milliseconds; alone, or beside threads that
// append as many bytes to files of their own.
fields commit_floor(options const& given) {
    constexpr std::size_t prepared = 64U << 20U;
    auto const bytes = std::min<std::size_t>((given.number("--bytes", 1500) + 4095) / 4096 * 4096, prepared);
    std::chrono::milliseconds const length(given.number("--epoch-ms", 3));
    file log(given.text("--dir") + "/floor", O_RDWR | O_CREAT);
    std::string const zeros(1U << 20U, '\0');
    for (std::size_t at = 0; at < prepared; at += zeros.size()) {
        log.write(zeros);
    }
    log.sync_data();
    std::string const group(bytes, 'v');
    std::unique_ptr<background> beside;
    if (auto const threads = given.number("--channels", 0); threads > 0) {
        beside = std::make_unique<background>(given.text("--dir"), threads, given.real("--bytes-per-second", 1e6));
    }
    std::vector<double> times;
    std::size_t at = 0;
    auto next = std::chrono::steady_clock::now();
    for (std::uint64_t round = given.number("--rounds", 300); round > 0; --round) {
        next = std::max(next + length, std::chrono::steady_clock::now());
        std::this_thread::sleep_until(next);
        at = at + bytes <= prepared ? at : 0;
        auto const begin = now_seconds();
        check(::pwrite(log.descriptor(), group.data(), group.size(), static_cast<off_t>(at)), "pwrite");
        log.sync_data();
        times.push_back(now_seconds() - begin);
        at += bytes;
    }
    fields result;
    add_quantiles(result, "sync", times);
    return result;
}

}  // namespace bench
