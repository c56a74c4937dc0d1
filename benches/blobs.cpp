// SPDX-License-Identifier: Apache-2.0
// BLOBs: one transaction registers many small ones and a second one a large one, through the C++ interface; and the
// system calls that no store can do without which keeps a BLOB in a file of its own.
#include <fcntl.h>
#include <limestone/api/blob_pool.h>
#include <limestone/api/configuration.h>
#include <limestone/api/datastore.h>
#include <limestone/api/log_channel.h>
#include <sys/stat.h>

#include <array>
#include <cstdio>
#include <string>
#include <vector>

#include "measure.h"

namespace bench {

namespace {

constexpr std::size_t small_bytes = 4096;
/// BLOB files are spread over so many directories.
constexpr std::uint64_t directory_count = 100;

struct workload {
    std::uint64_t small_count;
    std::string small;
    std::string large;
};

workload workload_of(options const& given) {
    workload result{given.number("--blobs", 10'000), std::string(small_bytes, '\0'),
                    std::string(given.number("--large-bytes", 1U << 30U), '\0')};
    random_numbers numbers(1);
    for (auto* content : {&result.small, &result.large}) {
        for (std::size_t i = 0; i + sizeof(std::uint64_t) <= content->size(); i += sizeof(std::uint64_t)) {
            auto const word = numbers.next();
            std::memcpy(content->data() + i, &word, sizeof(word));
        }
    }
    return result;
}

void make_directory(std::string const& path) {
    check(::mkdir(path.c_str(), 0777), path.c_str());
}

void sync_directory(std::string const& path) {
    file const directory(path, O_RDONLY | O_DIRECTORY);
    check(::fsync(directory.descriptor()), path.c_str());
}

// What the store keeps on the disk, written with bare calls.
class floor_store {
public:
    explicit floor_store(std::string root)
        : root_(std::move(root)), log_(root_ + "/pwal_0000", O_CREAT | O_WRONLY | O_APPEND) {
        make_directory(root_ + "/blob");
        sync_directory(root_);
    }

    // A file of its own, its content on the disk.
    void add(std::string const& content) {
        auto const id = ++last_id_;
        auto const number = id % directory_count;
        auto const directory = directory_of(number);
        if (!made_[number]) {
            make_directory(directory);
            sync_directory(root_ + "/blob");
            made_[number] = true;
        }
        std::array<char, 32> name{};
        std::snprintf(name.data(), name.size(), "/%016llx.blob", static_cast<unsigned long long>(id));
        file const blob(directory + name.data(), O_CREAT | O_EXCL | O_WRONLY);
        blob.write(content);
        blob.sync_data();
        touched_[number] = true;
        entries_.append(entry_bytes - value_bytes + 12, 'e');
    }

    // The names, then the log entries that refer to them.
    void commit() {
        for (std::uint64_t number = 0; number < directory_count; ++number) {
            if (touched_[number]) {
                sync_directory(directory_of(number));
            }
        }
        touched_.fill(false);
        log_.write(entries_);
        log_.sync_data();
        entries_.clear();
    }

private:
    [[nodiscard]] std::string directory_of(std::uint64_t number) const {
        std::array<char, 16> name{};
        std::snprintf(name.data(), name.size(), "/blob/dir_%02u", static_cast<unsigned>(number));
        return root_ + name.data();
    }

    std::string root_;
    file log_;
    std::uint64_t last_id_ = 0;
    std::array<bool, directory_count> made_{};
    std::array<bool, directory_count> touched_{};
    std::string entries_;
};

}  // namespace

fields blobs(options const& given) {
    auto const work = workload_of(given);
    limestone::api::configuration configuration;
    configuration.set_data_location(given.text("--dir"));
    limestone::api::datastore datastore(configuration);
    auto& channel = datastore.create_channel();
    datastore.ready();
    auto epoch = datastore.last_epoch() + 1;
    datastore.switch_epoch(epoch);
    auto const pool = datastore.acquire_blob_pool();

    auto const begin = now_seconds();
    channel.begin_session();
    std::uint64_t number = 0;
    auto const add = [&](std::string const& content) {
        std::string key(key_bytes, '0');
        std::memcpy(key.data(), &number, sizeof(number));
        channel.add_entry(1, key, "", {epoch, number++}, {pool->register_data(content)});
    };
    for (std::uint64_t i = 0; i < work.small_count; ++i) {
        add(work.small);
    }
    channel.end_session();
    auto const small_done = now_seconds();
    channel.begin_session();
    add(work.large);
    channel.end_session();
    auto const end = now_seconds();

    datastore.switch_epoch(++epoch);
    pool->release();
    datastore.shutdown().get();
    return {{"seconds", end - begin}, {"small_seconds", small_done - begin}, {"large_seconds", end - small_done}};
}

fields blobs_floor(options const& given) {
    auto const work = workload_of(given);
    floor_store store(given.text("--dir"));
    auto const begin = now_seconds();
    for (std::uint64_t i = 0; i < work.small_count; ++i) {
        store.add(work.small);
    }
    store.commit();
    auto const small_done = now_seconds();
    store.add(work.large);
    store.commit();
    auto const end = now_seconds();
    return {{"seconds", end - begin}, {"small_seconds", small_done - begin}, {"large_seconds", end - small_done}};
}

}  // namespace bench
