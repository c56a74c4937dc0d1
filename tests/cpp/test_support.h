// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include <limestone/api/datastore.h>
#include <limestone/api/log_channel.h>

namespace limestone::testing {

/// A directory of its own for one test, removed at the end. While it is there, processes that the test starts make
/// theirs inside it, so that those of a process that aborts on purpose go with it.
class scratch_directory {
public:
    scratch_directory() : outer_(std::filesystem::temp_directory_path()) {
        auto pattern = (outer_ / "limestone-test-XXXXXX").string();
        if (::mkdtemp(pattern.data()) == nullptr) {
            throw std::runtime_error("cannot create " + pattern);
        }
        path_ = pattern;
        ::setenv("TMPDIR", path_.c_str(), 1);
    }

    ~scratch_directory() {
        ::setenv("TMPDIR", outer_.c_str(), 1);
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }

    scratch_directory(scratch_directory const&) = delete;
    scratch_directory& operator=(scratch_directory const&) = delete;

    /// A data location that does not exist yet.
    [[nodiscard]] std::filesystem::path location() const { return path_ / "log"; }

    [[nodiscard]] std::filesystem::path const& path() const { return path_; }

private:
    std::filesystem::path outer_;
    std::filesystem::path path_;
};

/// Settings for a data location.
inline api::configuration settings(std::filesystem::path const& location) {
    api::configuration conf;
    conf.set_data_location(location);
    conf.set_recover_max_parallelism(2);
    return conf;
}

/// One entry: storage, key, value.
using entry = std::tuple<std::uint64_t, std::string, std::string>;

/// What is left in a cursor.
inline std::vector<entry> drain(api::cursor& cursor) {
    std::vector<entry> entries;
    std::string key;
    std::string value;
    while (cursor.next()) {
        cursor.key(key);
        cursor.value(value);
        entries.emplace_back(cursor.storage(), key, value);
    }
    return entries;
}

/// All entries of a datastore's snapshot.
inline std::vector<entry> entries_of(api::datastore const& datastore) {
    return drain(*datastore.get_snapshot()->get_cursor());
}

/// The entries that the next start finds.
inline std::vector<entry> recover_entries(std::filesystem::path const& location) {
    api::datastore datastore(settings(location));
    datastore.ready();
    return entries_of(datastore);
}

/// A datastore whose protected accessors can be used.
class open_datastore : public api::datastore {
public:
    using datastore::datastore;
    using datastore::epoch_id_informed_for_tests;
    using datastore::epoch_id_record_finished_for_tests;
    using datastore::epoch_id_switched_for_tests;
    using datastore::epoch_id_to_be_recorded_for_tests;
    using datastore::files_for_tests;
    using datastore::get_available_boundary_version_for_tests;
    using datastore::get_persistent_blob_ids_for_tests;
    using datastore::log_channels_for_tests;
    using datastore::next_blob_id_for_tests;
    using datastore::on_begin_session_current_epoch_id_store;
    using datastore::on_end_session_current_epoch_id_store;
    using datastore::on_end_session_finished_epoch_id_store;
    using datastore::on_rotate_log_files;
    using datastore::on_switch_epoch_epoch_id_switched_store;
    using datastore::on_update_min_epoch_id_current_epoch_id_load;
    using datastore::on_update_min_epoch_id_epoch_id_informed_cas;
    using datastore::on_update_min_epoch_id_epoch_id_informed_load_1;
    using datastore::on_update_min_epoch_id_epoch_id_informed_load_2;
    using datastore::on_update_min_epoch_id_epoch_id_record_finished_load;
    using datastore::on_update_min_epoch_id_epoch_id_switched_load;
    using datastore::on_update_min_epoch_id_epoch_id_to_be_recorded_cas;
    using datastore::on_update_min_epoch_id_epoch_id_to_be_recorded_load;
    using datastore::on_update_min_epoch_id_finished_epoch_id_load;
    using datastore::rotate_epoch_file_for_tests;
    using datastore::set_next_blob_id_for_tests;
    using datastore::set_write_epoch_callback;
    using datastore::wait_for_blob_file_garbace_collector_for_tests;
};

/// A session with one entry of storage 1, whose version is in this epoch.
inline void write(api::log_channel& channel, api::epoch_id_type epoch, std::string_view key, std::string_view value,
                  std::vector<api::blob_id_type> const& blobs = {}) {
    channel.begin_session();
    if (blobs.empty()) {
        channel.add_entry(1, key, value, {epoch, 0});
    } else {
        channel.add_entry(1, key, value, {epoch, 0}, blobs);
    }
    channel.end_session();
}

/// A datastore with a channel, started and in epoch 1: what most tests begin with.
class running_datastore : public open_datastore {
public:
    explicit running_datastore(std::filesystem::path const& location)
        : open_datastore(settings(location)), channel(create_channel()) {
        ready();
        switch_epoch(1);
    }

    void write(api::epoch_id_type epoch, std::string_view key, std::string_view value,
               std::vector<api::blob_id_type> const& blobs = {}) {
        testing::write(channel, epoch, key, value, blobs);
    }

    api::log_channel& channel;
};

}  // namespace limestone::testing
