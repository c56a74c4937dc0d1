// SPDX-License-Identifier: Apache-2.0
// Detailed backups and both forms of restore (public API, section 8).
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <future>

#include <limestone/api/limestone_exception.h>

#include "test_support.h"

namespace limestone::testing {

using namespace limestone::api;

namespace {

namespace stdfs = std::filesystem;

/// Copies the files of a detailed backup to a directory of their own, as the server does.
void copy_to(backup_detail& backup, stdfs::path const& to) {
    stdfs::create_directories(to);
    for (auto const& entry : backup.entries()) {
        stdfs::copy_file(entry.source_path().string(), to / entry.destination_path().string());
    }
}

/// A directory with a backup of one entry of storage 1.
stdfs::path make_backup(stdfs::path const& scratch, std::string const& key, std::string const& value) {
    auto source = scratch / ("source of " + key);
    auto to = scratch / ("backup of " + key);
    running_datastore object(source);
    object.write(1, key, value);
    object.switch_epoch(2);
    copy_to(*object.begin_backup(backup_type::standard), to);
    return to;
}

/// A data location with one entry, closed again.
void make_location(stdfs::path const& location, std::string const& key) {
    running_datastore object(location);
    object.write(1, key, "old");
    object.switch_epoch(2);
}

std::vector<std::string> names_in(stdfs::path const& directory) {
    std::vector<std::string> names;
    for (auto const& entry : stdfs::directory_iterator(directory)) {
        names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
}

void write_file(stdfs::path const& path, std::string const& content) {
    std::ofstream(path) << content;
}

using entries = std::vector<entry>;
using kind = restore_progress::status_kind;

}  // namespace

TEST(detailed_backups, list_settled_files_by_name_and_then_blobs_with_their_roles) {
    scratch_directory scratch;
    running_datastore object(scratch.location());
    object.create_channel();
    auto pool = object.acquire_blob_pool();
    auto blob = pool->register_data("content");
    object.write(1, "k", "v", {blob});
    object.switch_epoch(2);
    auto backup = object.begin_backup(backup_type::transaction);
    ASSERT_EQ(backup->entries().size(), 6U);
    std::vector<std::string> prefixes{"compaction_catalog",      "epoch.",     "limestone-history.json",
                                      "limestone-manifest.json", "pwal_0000.", "0000000000000001.blob"};
    for (std::size_t i = 0; i < prefixes.size(); ++i) {
        auto const& file = backup->entries()[i];
        auto name = file.destination_path().string();
        EXPECT_EQ(name.rfind(prefixes[i], 0), 0U) << name;
        EXPECT_EQ(file.source_path().filename().string(), name);
        EXPECT_EQ(file.source_path().string().rfind(scratch.location().string(), 0), 0U);
        EXPECT_TRUE(boost::filesystem::is_regular_file(file.source_path()));
        EXPECT_EQ(file.is_mutable(), name == "limestone-manifest.json" || name == "limestone-history.json");
        EXPECT_FALSE(file.is_detached());
    }
    EXPECT_EQ(backup->configuration_id(), "0");
    EXPECT_EQ(backup->log_start(), 0U);
    EXPECT_EQ(backup->log_finish(), 1U);
    EXPECT_EQ(backup->image_finish(), std::nullopt);
    EXPECT_TRUE(backup->is_ready());
    EXPECT_FALSE(stdfs::exists(scratch.location() / "pwal_0000"));
}

TEST(detailed_backups, and_restores_are_possible_after_a_shutdown) {
    scratch_directory scratch;
    running_datastore object(scratch.location());
    object.write(1, "k", "old");
    object.switch_epoch(2);
    object.shutdown().wait();
    copy_to(*object.begin_backup(backup_type::standard), scratch.path() / "backup");

    object.ready();
    object.switch_epoch(3);
    object.write(1, "k", "new");
    object.switch_epoch(4);
    object.shutdown().wait();
    EXPECT_EQ(object.restore((scratch.path() / "backup").string(), true), status::ok);
    object.ready();
    EXPECT_EQ(entries_of(object), (entries{{1, "k", "old"}}));
}

TEST(detailed_backups, list_blobs_to_which_no_entry_refers_and_keep_them_from_their_pool) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    object.ready();
    object.switch_epoch(1);
    auto pool = object.acquire_blob_pool();
    auto blob = pool->register_data("content");
    object.switch_epoch(2);
    auto backup = object.begin_backup(backup_type::standard);
    EXPECT_EQ(backup->entries().back().destination_path().string(), "0000000000000001.blob");
    pool->release();
    EXPECT_TRUE(static_cast<bool>(object.get_blob_file(blob)));
}

TEST(detailed_backups, of_a_location_without_an_epoch_are_made_as_well) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    object.ready();
    auto backup = object.begin_backup(backup_type::standard);
    EXPECT_EQ(backup->log_finish(), 0U);
    EXPECT_EQ(backup->entries().size(), 4U);
}

TEST(detailed_backups, wait_for_what_was_written_before) {
    scratch_directory scratch;
    auto to = scratch.path() / "backup";
    {
        running_datastore object(scratch.location());
        object.write(1, "k", "v");
        auto begun = std::async(std::launch::async, [&] { return object.begin_backup(backup_type::standard); });
        epoch_id_type epoch = 1;
        while (begun.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) {
            object.switch_epoch(++epoch);
        }
        auto backup = begun.get();
        EXPECT_GE(backup->log_finish(), 1U);
        copy_to(*backup, to);
    }
    EXPECT_EQ(recover_entries(to), (entries{{1, "k", "v"}}));
}

TEST(detailed_backups, are_given_up_by_a_shutdown) {
    scratch_directory scratch;
    running_datastore object(scratch.location());
    auto& channel = object.channel;
    channel.begin_session();
    auto begun = std::async(std::launch::async, [&] { return object.begin_backup(backup_type::standard); });
    begun.wait_for(std::chrono::milliseconds(20));
    object.shutdown();
    EXPECT_THROW(begun.get(), limestone_exception);
}

TEST(detailed_backups, hold_exactly_what_is_durable_at_log_finish) {
    scratch_directory scratch;
    auto to = scratch.path() / "backup";
    running_datastore object(scratch.location());
    auto& other = object.create_channel();
    object.write(1, "durable", "1");
    object.switch_epoch(2);
    other.begin_session();
    other.add_entry(1, "open", "2", {2, 0});
    auto backup = std::async(std::launch::async, [&] { return object.begin_backup(backup_type::standard); });
    // The session keeps its epoch back while the backup waits, and ends in time.
    backup.wait_for(std::chrono::milliseconds(20));
    other.end_session();
    object.switch_epoch(3);
    auto detail = backup.get();
    object.write(1, "later", "3");
    object.switch_epoch(4);
    EXPECT_EQ(detail->log_finish(), 2U);
    copy_to(*detail, to);
    EXPECT_EQ(recover_entries(to), (entries{{1, "durable", "1"}, {1, "open", "2"}}));
}

TEST(detailed_backups, may_outlive_the_datastore) {
    scratch_directory scratch;
    std::unique_ptr<backup_detail> backup;
    {
        datastore object(settings(scratch.location()));
        object.ready();
        backup = object.begin_backup(backup_type::standard);
    }
    backup->notify_end_backup();
    backup->notify_end_backup();
    EXPECT_EQ(backup->entries().size(), 4U);
}

TEST(epoch_files, are_rotated_and_never_empty) {
    scratch_directory scratch;
    {
        running_datastore object(scratch.location());
        object.write(1, "k", "v");
        object.switch_epoch(2);
        object.rotate_epoch_file_for_tests();
        auto names = names_in(scratch.location());
        auto rotated =
            std::find_if(names.begin(), names.end(), [](auto const& n) { return n.rfind("epoch.", 0) == 0; });
        ASSERT_NE(rotated, names.end());
        EXPECT_EQ(rotated->substr(rotated->rfind('.')), ".2") << "the current epoch";
        EXPECT_EQ(stdfs::file_size(scratch.location() / *rotated), 9U);
        EXPECT_EQ(stdfs::file_size(scratch.location() / "epoch"), 9U);
        object.write(1, "k2", "v2");
        object.switch_epoch(3);
        // A commit journal has the record until then.
        object.shutdown();
        EXPECT_EQ(stdfs::file_size(scratch.location() / "epoch"), 18U);
    }
    EXPECT_EQ(recover_entries(scratch.location()).size(), 2U);
}

TEST(restores, of_a_directory_replace_the_content_and_the_same_object_may_become_ready) {
    scratch_directory scratch;
    auto from = make_backup(scratch.path(), "new", "value");
    make_location(scratch.location(), "old");
    datastore object(settings(scratch.location()));
    EXPECT_EQ(object.restore_status().kind(), kind::prepareing);
    EXPECT_EQ(object.restore(from.string(), true), status::ok);
    auto progress = object.restore_status();
    EXPECT_EQ(progress.kind(), kind::completed);
    EXPECT_EQ(progress.files_done(), 5U);
    EXPECT_EQ(progress.files_total(), 5U);
    EXPECT_GT(progress.bytes_done(), 100U);
    EXPECT_EQ(names_in(from).size(), 5U) << "the backup was kept";
    object.ready();
    EXPECT_EQ(entries_of(object), (entries{{1, "new", "value"}}));
}

TEST(restores, delete_the_content_of_the_backup_when_it_is_not_to_be_kept) {
    scratch_directory scratch;
    auto from = make_backup(scratch.path(), "new", "value");
    {
        datastore object(settings(scratch.location()));
        EXPECT_EQ(object.restore(from.string(), false), status::ok);
    }
    EXPECT_TRUE(stdfs::is_empty(from));
    EXPECT_EQ(recover_entries(scratch.location()), (entries{{1, "new", "value"}}));
}

TEST(restores, keep_the_lock) {
    scratch_directory scratch;
    auto from = make_backup(scratch.path(), "new", "value");
    datastore object(settings(scratch.location()));
    ASSERT_EQ(object.restore(from.string(), true), status::ok);
    EXPECT_DEATH({ datastore second(settings(scratch.location())); }, "another process is using the log directory");
}

TEST(restores, put_blobs_from_a_flat_directory_to_their_places) {
    scratch_directory scratch;
    auto from = scratch.path() / "backup";
    blob_id_type blob{};
    {
        running_datastore object(scratch.path() / "source");
        auto pool = object.acquire_blob_pool();
        blob = pool->register_data("content");
        object.write(1, "k", "v", {blob});
        object.switch_epoch(2);
        copy_to(*object.begin_backup(backup_type::standard), from);
    }
    datastore object(settings(scratch.location()));
    ASSERT_EQ(object.restore(from.string(), true), status::ok);
    object.ready();
    auto file = object.get_blob_file(blob);
    ASSERT_TRUE(static_cast<bool>(file));
    EXPECT_EQ(file.path().string(), (scratch.location() / "blob" / "dir_01" / "0000000000000001.blob").string());
    EXPECT_EQ(boost::filesystem::file_size(file.path()), 7U);
}

TEST(restores, accept_old_versions_and_migrate_them_at_the_start) {
    scratch_directory scratch;
    auto from = make_backup(scratch.path(), "new", "value");
    write_file(from / "limestone-manifest.json", R"({"format_version":"1.0","persistent_format_version":6.9})");
    datastore object(settings(scratch.location()));
    ASSERT_EQ(object.restore(from.string(), true), status::ok);
    std::ifstream manifest(scratch.location() / "limestone-manifest.json");
    std::string text;
    std::getline(manifest, text);
    EXPECT_NE(text.find("6.9"), std::string::npos) << text;
    object.ready();
    EXPECT_EQ(entries_of(object), (entries{{1, "new", "value"}}));
}

TEST(restores, that_are_refused_change_nothing_and_say_why) {
    scratch_directory scratch;
    make_location(scratch.location(), "old");
    auto before = names_in(scratch.location());
    auto from = make_backup(scratch.path(), "new", "value");
    auto manifest = from / "limestone-manifest.json";
    {
        datastore object(settings(scratch.location()));
        auto gives = [&](status expected) {
            EXPECT_EQ(object.restore(from.string(), false), expected);
            EXPECT_EQ(object.restore_status().kind(), kind::canceled);
            EXPECT_EQ(names_in(scratch.location()), before);
        };
        EXPECT_EQ(object.restore((scratch.path() / "nowhere").string(), true), status::err_broken_data);
        EXPECT_EQ(object.restore(scratch.location().string(), true), status::err_permission_error);
        for (auto const* version : {"0", "-3", "8", "\"7\""}) {
            write_file(manifest,
                       std::string(R"({"format_version":"1.0","persistent_format_version":)") + version + "}");
            gives(status::err_broken_data);
        }
        write_file(manifest, "no manifest");
        gives(status::err_broken_data);
        write_file(manifest, R"({"format_version":"1.0","persistent_format_version":true})");
        stdfs::create_directory(from / "sub");
        gives(status::err_permission_error);
        stdfs::remove(from / "sub");
        stdfs::create_symlink("/etc/hostname", from / "link");
        gives(status::err_permission_error);
        stdfs::remove(from / "link");
        write_file(from / "compaction_catalog", "torn");
        gives(status::err_broken_data);
        stdfs::remove(from / "compaction_catalog");
        write_file(from / "data", "has the name of a directory");
        gives(status::err_permission_error);
        stdfs::remove(from / "data");
        for (auto const& name : names_in(from)) {
            if (name.rfind("epoch", 0) == 0) {
                stdfs::remove(from / name);
            }
        }
        gives(status::err_broken_data);
        object.ready();
        EXPECT_EQ(entries_of(object), (entries{{1, "old", "old"}}));
        EXPECT_EQ(object.restore(from.string(), true), status::err_permission_error) << "after ready()";
    }
}

TEST(restores, of_listed_files_take_relative_and_absolute_sources) {
    scratch_directory scratch;
    auto from = make_backup(scratch.path(), "new", "value");
    make_location(scratch.location(), "old");
    std::vector<file_set_entry> files;
    for (auto const& name : names_in(from)) {
        auto absolute = name.rfind("pwal_", 0) == 0;
        files.emplace_back(absolute ? (from / name).string() : name, absolute ? "pwal_0000.00000000000001.0" : name,
                           false);
    }
    // The last entry for a destination counts.
    write_file(from / "other", "not a catalog");
    files.insert(files.begin(), file_set_entry("other", "compaction_catalog", true));
    {
        datastore object(settings(scratch.location()));
        EXPECT_EQ(object.restore(from.string(), files), status::ok);
    }
    EXPECT_EQ(names_in(from).size(), 6U) << "the backup stays";
    EXPECT_EQ(recover_entries(scratch.location()), (entries{{1, "new", "value"}}));
}

TEST(restores, of_hostile_lists_change_nothing) {
    scratch_directory scratch;
    make_location(scratch.location(), "old");
    auto before = names_in(scratch.location());
    auto from = make_backup(scratch.path(), "new", "value");
    write_file(scratch.path() / "outside", "x");
    write_file(from / "0000000000000001.blob", "x");
    stdfs::create_symlink(scratch.path() / "outside", from / "link");
    stdfs::create_directory(from / "sub");
    struct wrong_entry {
        std::string source;
        std::string destination;
        status expected;
    };
    std::vector<wrong_entry> cases{
        {"nowhere", "x", status::err_not_found},
        {"sub", "x", status::err_not_found},
        {"", "x", status::err_not_found},
        {"/dev/null", "x", status::err_not_found},
        {"../outside", "x", status::err_permission_error},
        {"link", "x", status::err_permission_error},
        {"compaction_catalog", "a/b/epoch", status::err_permission_error},
        {"compaction_catalog", "../escaped", status::err_permission_error},
        {"compaction_catalog", "/tmp/escaped", status::err_permission_error},
        {"compaction_catalog", "", status::err_permission_error},
        {"compaction_catalog", "..", status::err_permission_error},
        {"compaction_catalog", "blob", status::err_permission_error},
        {"compaction_catalog", "restoring", status::err_permission_error},
        {"compaction_catalog", "0000000000000001.blob", status::err_permission_error},
        {"nowhere", "limestone-manifest.json", status::err_not_found},
        {"compaction_catalog", "limestone-manifest.json", status::err_broken_data},
    };
    datastore object(settings(scratch.location()));
    for (auto const& wrong : cases) {
        std::vector<file_set_entry> files;
        for (auto const& name : names_in(from)) {
            if (name != "link" && name != "sub") {
                files.emplace_back(name, name, false);
            }
        }
        files.emplace_back(wrong.source, wrong.destination, false);
        EXPECT_EQ(object.restore(from.string(), files), wrong.expected) << wrong.source << " to " << wrong.destination;
        EXPECT_EQ(object.restore_status().kind(), kind::canceled);
        EXPECT_EQ(names_in(scratch.location()), before) << wrong.source << " to " << wrong.destination;
    }
    std::vector<file_set_entry> files{{"compaction_catalog", "compaction_catalog", false}};
    EXPECT_EQ(object.restore(from.string(), files), status::err_broken_data) << "no manifest";
    files = {{"0000000000000001.blob", "limestone-manifest.json", false}};
    EXPECT_EQ(object.restore(from.string(), files), status::err_broken_data) << "a BLOB for a manifest";
    files.clear();
    EXPECT_EQ(object.restore(from.string(), files), status::err_broken_data) << "nothing";
    object.ready();
    EXPECT_EQ(entries_of(object), (entries{{1, "old", "old"}}));
}

TEST(restores, keep_sub_directories_and_delete_all_other_files) {
    scratch_directory scratch;
    auto from = make_backup(scratch.path(), "new", "value");
    make_location(scratch.location(), "old");
    stdfs::create_directory(scratch.location() / "mine");
    write_file(scratch.location() / "mine" / "file", "x");
    write_file(scratch.location() / "foreign", "x");
    datastore object(settings(scratch.location()));
    ASSERT_EQ(object.restore(from.string(), true), status::ok);
    EXPECT_TRUE(stdfs::exists(scratch.location() / "mine" / "file"));
    EXPECT_FALSE(stdfs::exists(scratch.location() / "foreign"));
    EXPECT_FALSE(stdfs::exists(scratch.location() / "restoring"));
}

}  // namespace limestone::testing
