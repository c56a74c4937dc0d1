// SPDX-License-Identifier: Apache-2.0
// What all benchmarks share: clocks, medians, command line options, results of child processes, and the shape of an
// entry. A benchmark is a subcommand that prints its results as `name=value` lines; the report starts each in a process
// of its own, so that nothing is warm that would not be warm for a user.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace bench {

constexpr std::size_t key_bytes = 16;
constexpr std::size_t value_bytes = 100;
/// Size of such an entry in a log file: tag, two lengths, storage, key, version, value.
constexpr std::size_t entry_bytes = 1 + 4 + 4 + 8 + key_bytes + 16 + value_bytes;
constexpr std::size_t session_begin_bytes = 9;
constexpr std::size_t session_end_bytes = 10;
constexpr std::size_t epoch_record_bytes = 9;

/// Results of a benchmark by name.
using fields = std::map<std::string, double>;

/// Seconds of a clock that only goes forward.
inline double now_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// User and system time of this process so far, all threads, in seconds.
double cpu_seconds();

/// The median; of an even number of values the mean of the two in the middle. Throws on an empty list.
double median(std::vector<double> values);

/// `--name value` pairs of a subcommand.
class options {
public:
    explicit options(std::vector<std::string> const& arguments);
    [[nodiscard]] std::string text(std::string const& name) const;
    [[nodiscard]] std::uint64_t number(std::string const& name, std::uint64_t fallback) const;
    [[nodiscard]] double real(std::string const& name, double fallback) const;

private:
    std::map<std::string, std::string> values_;
};

/// Variables that a child gets besides those of this program.
using variables = std::map<std::string, std::string>;

/// Runs this program again with a subcommand and returns what it printed. Throws when it fails.
fields run_child(std::vector<std::string> const& arguments, variables const& environment = {});

/// Prints results in the form that `run_child` reads.
void print_fields(fields const& results);

/// Fails with errno in the message when a system call returned a negative value; returns the value otherwise.
template <typename T>
T check(T result, char const* call) {
    if (result < 0) {
        throw std::runtime_error(std::string(call) + ": " + std::strerror(errno));
    }
    return result;
}

/// An open file, closed at the end of its life.
class file {
public:
    file(std::string const& path, int flags);
    ~file() { ::close(descriptor_); }
    file(file const&) = delete;
    file& operator=(file const&) = delete;
    file(file&&) = delete;
    file& operator=(file&&) = delete;
    [[nodiscard]] int descriptor() const noexcept { return descriptor_; }

    /// Writes all bytes, in one call unless the system takes fewer.
    void write(std::string_view bytes) const;
    void sync_data() const { check(::fdatasync(descriptor_), "fdatasync"); }

private:
    int descriptor_;
};

/// The sum of the 8-byte words of a value: reads every byte, and cheaply.
inline std::uint64_t touch(char const* bytes, std::size_t size) {
    std::uint64_t sum = 0;
    std::uint64_t word = 0;
    std::size_t i = 0;
    for (; i + sizeof(word) <= size; i += sizeof(word)) {
        std::memcpy(&word, bytes + i, sizeof(word));
        sum += word;
    }
    if (i < size) {
        word = 0;
        std::memcpy(&word, bytes + i, size - i);
        sum += word;
    }
    return sum;
}

/// A fixed sequence of well mixed numbers (splitmix64): every run sees the same data.
class random_numbers {
public:
    explicit random_numbers(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() {
        state_ += 0x9e3779b97f4a7c15ULL;
        auto z = state_;
        z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27U)) * 0x94d049bb133111ebULL;
        return z ^ (z >> 31U);
    }

private:
    std::uint64_t state_;
};

// The subcommands.
fields generate(options const& given);
fields recover(options const& given);
fields recover_floor(options const& given);
fields add_entry(options const& given);
fields sessions(options const& given);
fields sessions_floor(options const& given);
fields epoch_latency(options const& given);
fields epoch_load(options const& given);
fields epoch_load_floor(options const& given);
fields inspect(options const& given);
fields inspect_floor(options const& given);
fields blobs(options const& given);
fields blobs_floor(options const& given);
fields compact(options const& given);
fields compact_floor(options const& given);
fields compact_beside_writers(options const& given);
fields replicated_load(options const& given);
fields catch_up(options const& given);
fields rejoin(options const& given);
fields engine_like(options const& given);
fields commit_load(options const& given);
fields commit_floor(options const& given);

/// Runs all rows, prints the table, writes the JSON file; returns the exit code.
int report(std::vector<std::string> const& arguments);

}  // namespace bench
