// SPDX-License-Identifier: Apache-2.0
// What recovery cannot avoid: read the files once, sort an index of all entries, touch each live value in key order.
// Two threads read, parse and sort; the values are touched by one, as one cursor is read by one thread.
//
// And what a compaction cannot avoid: the same, with the live entries written to a file that is synced once.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "measure.h"

namespace bench {

namespace {

constexpr std::size_t thread_count = 2;
// The mark of the writer: an invalidated session that tells who wrote what stands behind it.
constexpr std::size_t mark_bytes = 44;

struct index_entry {
    std::uint64_t key_high;  // the key as two big-endian words: compares like its bytes
    std::uint64_t key_low;
    std::uint64_t major;
    std::uint64_t minor;
    char const* value;
    std::size_t value_size;

    [[nodiscard]] bool same_key(index_entry const& other) const noexcept {
        return key_high == other.key_high && key_low == other.key_low;
    }
    // By key, and the newest version of a key first.
    bool operator<(index_entry const& other) const noexcept {
        if (key_high != other.key_high) {
            return key_high < other.key_high;
        }
        if (key_low != other.key_low) {
            return key_low < other.key_low;
        }
        if (major != other.major) {
            return major > other.major;
        }
        return minor > other.minor;
    }
};

struct contents {
    std::unique_ptr<char[]> bytes;
    std::size_t size = 0;
};

template <typename T>
T read_number(char const* bytes) {
    T number;
    std::memcpy(&number, bytes, sizeof(number));
    return number;
}

contents read_file(std::string const& path) {
    file const input(path, O_RDONLY);
    struct stat status {};
    check(::fstat(input.descriptor(), &status), "fstat");
    contents result;
    result.size = static_cast<std::size_t>(status.st_size);
    result.bytes.reset(new char[result.size]);
    for (std::size_t done = 0; done < result.size;) {
        auto const count =
            check(::read(input.descriptor(), result.bytes.get() + done, result.size - done), path.c_str());
        if (count == 0) {
            throw std::runtime_error(path + " became shorter");
        }
        done += static_cast<std::size_t>(count);
    }
    return result;
}

// Knows what the generator writes, and nothing else.
void parse(contents const& input, std::vector<index_entry>& index) {
    char const* position = input.bytes.get();
    char const* const end = position + input.size;
    while (position < end) {
        switch (*position) {
            case 1: {
                auto const value_size = read_number<std::uint32_t>(position + 5);
                auto const* key = position + 17;
                auto const* version = key + key_bytes;
                index.push_back({__builtin_bswap64(read_number<std::uint64_t>(key)),
                                 __builtin_bswap64(read_number<std::uint64_t>(key + 8)),
                                 read_number<std::uint64_t>(version), read_number<std::uint64_t>(version + 8),
                                 version + 16, value_size});
                position = version + 16 + value_size;
                break;
            }
            case 2:
                position += session_begin_bytes;
                break;
            case 3:
                position += session_end_bytes;
                break;
            case 6:
                position += mark_bytes;
                break;
            default:
                throw std::runtime_error("entry of an unexpected kind");
        }
    }
}

// Reads the log files of a directory, sorts what is in them, and hands the live entries over in key order.
class sorted_log {
public:
    explicit sorted_log(std::string const& directory) : runs_(thread_count) {
        std::vector<std::string> paths;
        for (auto const& entry : std::filesystem::directory_iterator(directory)) {
            if (entry.path().filename().string().compare(0, 5, "pwal_") == 0) {
                paths.push_back(entry.path().string());
            }
        }
        files_.resize(paths.size());
        std::vector<std::exception_ptr> errors(thread_count);
        std::atomic<std::size_t> next_file{0};
        std::vector<std::thread> threads;
        for (std::size_t i = 0; i < thread_count; ++i) {
            threads.emplace_back([&, i] {
                try {
                    auto& run = runs_[i];
                    for (auto f = next_file++; f < paths.size(); f = next_file++) {
                        files_[f] = read_file(paths[f]);
                        run.reserve(run.size() + files_[f].size / entry_bytes + 1);
                        parse(files_[f], run);
                    }
                    std::sort(run.begin(), run.end());
                } catch (...) {
                    errors[i] = std::current_exception();
                }
            });
        }
        for (auto& thread : threads) {
            thread.join();
        }
        for (auto const& error : errors) {
            if (error) {
                std::rethrow_exception(error);
            }
        }
    }

    template <typename Visitor>
    void for_each_live(Visitor const& visitor) const {
        index_entry const* previous = nullptr;
        auto const visit = [&](index_entry const& entry) {
            if (previous == nullptr || !previous->same_key(entry)) {
                visitor(entry);
            }
            previous = &entry;
        };
        auto a = runs_[0].cbegin();
        auto b = runs_[1].cbegin();
        while (a != runs_[0].cend() && b != runs_[1].cend()) {
            visit(*a < *b ? *a++ : *b++);
        }
        std::for_each(a, runs_[0].cend(), visit);
        std::for_each(b, runs_[1].cend(), visit);
    }

private:
    std::vector<contents> files_;
    std::vector<std::vector<index_entry>> runs_;
};

}  // namespace

fields recover_floor(options const& given) {
    auto const begin = now_seconds();
    sorted_log const log(given.text("--dir"));
    auto const sorted = now_seconds();
    std::uint64_t entries = 0;
    std::uint64_t checksum = 0;
    log.for_each_live([&](index_entry const& entry) {
        checksum += touch(entry.value, entry.value_size);
        ++entries;
    });
    auto const end = now_seconds();
    return {{"seconds", end - begin},
            {"ready_seconds", sorted - begin},
            {"scan_seconds", end - sorted},
            {"cpu_seconds", cpu_seconds()},
            {"entries", static_cast<double>(entries)},
            {"checksum", static_cast<double>(checksum)}};
}

fields compact_floor(options const& given) {
    auto const directory = given.text("--dir");
    auto const begin = now_seconds();
    sorted_log const log(directory);
    file const output(directory + "/floor_compacted", O_WRONLY | O_CREAT | O_TRUNC);
    std::string buffer;
    constexpr std::size_t write_bytes = 1U << 20U;
    buffer.reserve(write_bytes + entry_bytes);
    std::uint64_t entries = 0;
    log.for_each_live([&](index_entry const& entry) {
        constexpr std::size_t before_value = entry_bytes - value_bytes;
        buffer.append(entry.value - before_value, before_value + entry.value_size);
        ++entries;
        if (buffer.size() >= write_bytes) {
            output.write(buffer);
            buffer.clear();
        }
    });
    output.write(buffer);
    output.sync_data();
    auto const end = now_seconds();
    std::filesystem::remove(directory + "/floor_compacted");
    return {{"seconds", end - begin}, {"entries", static_cast<double>(entries)}};
}

}  // namespace bench
