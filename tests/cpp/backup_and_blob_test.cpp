// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include <limestone/api/limestone_exception.h>

#include "test_support.h"

namespace limestone::testing {

using namespace limestone::api;

TEST(backups, of_a_new_location_list_three_files) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    auto& backup = object.begin_backup();
    EXPECT_TRUE(backup.is_ready());
    EXPECT_TRUE(backup.wait_for_ready(0));
    auto location = boost::filesystem::path(scratch.location().string());
    EXPECT_EQ(backup.files(), (std::vector<boost::filesystem::path>{location / "compaction_catalog", location / "epoch",
                                                                    location / "limestone-manifest.json"}));
    backup.notify_end_backup();
    backup.notify_end_backup();
    object.ready();
    EXPECT_EQ(object.begin_backup().files().size(), 4U) << "the history of runs begins with the first start";
}

TEST(backups, list_existing_files_in_order_with_live_logs_and_blobs) {
    scratch_directory scratch;
    running_datastore object(scratch.location());
    object.write(1, "k", "v");
    std::filesystem::create_directories(scratch.location() / "blob" / "dir_07");
    std::ofstream(scratch.location() / "blob" / "dir_07" / "0000000000000007.blob") << "blob";
    auto& files = object.begin_backup().files();
    EXPECT_TRUE(std::is_sorted(files.begin(), files.end()));
    std::vector<std::string> names;
    for (auto const& file : files) {
        EXPECT_TRUE(boost::filesystem::exists(file)) << file;
        names.push_back(file.filename().string());
    }
    EXPECT_EQ(names, (std::vector<std::string>{"0000000000000007.blob", "compaction_catalog", "epoch",
                                               "limestone-history.json", "limestone-manifest.json", "pwal_0000"}));
}

TEST(backups, keep_a_relative_location_relative) {
    scratch_directory scratch;
    auto before = std::filesystem::current_path();
    std::filesystem::current_path(scratch.path());
    {
        datastore object(settings("log"));
        EXPECT_EQ(object.begin_backup().files().front().string(), "log/compaction_catalog");
        EXPECT_EQ(object.get_blob_file(255).path().string(), "log/blob/dir_55/00000000000000ff.blob");
    }
    std::filesystem::current_path(before);
}

TEST(blob_files, are_available_when_they_exist_and_their_id_was_given_out) {
    scratch_directory scratch;
    open_datastore object(settings(scratch.location()));
    object.ready();
    auto path = scratch.location() / "blob" / "dir_01" / "0000000000000065.blob";
    EXPECT_EQ(object.get_blob_file(101).path().string(), path.string());
    EXPECT_FALSE(static_cast<bool>(object.get_blob_file(101)));
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << "blob";
    object.set_next_blob_id_for_tests(101);
    EXPECT_FALSE(static_cast<bool>(object.get_blob_file(101)));
    object.set_next_blob_id_for_tests(102);
    EXPECT_TRUE(static_cast<bool>(object.get_blob_file(101)));
    std::filesystem::remove(path);
    EXPECT_FALSE(static_cast<bool>(object.get_blob_file(101)));
    EXPECT_EQ(object.get_blob_file(UINT64_MAX).path().filename().string(), "ffffffffffffffff.blob");
}

TEST(persistent_blob_ids, are_marked_by_entries_and_taken_back_in_order) {
    scratch_directory scratch;
    running_datastore object(scratch.location());
    auto& channel = object.channel;
    channel.begin_session();
    channel.add_entry(1, "k", "v", {1, 0}, {3, 5});
    object.add_persistent_blob_ids({7});
    EXPECT_EQ(object.get_persistent_blob_ids_for_tests(), (std::set<blob_id_type>{3, 5, 7}));
    EXPECT_EQ(object.check_and_remove_persistent_blob_ids({9, 5, 1, 7}), (std::vector<blob_id_type>{9, 1}));
    EXPECT_EQ(object.get_persistent_blob_ids_for_tests(), (std::set<blob_id_type>{3}));
    channel.end_session();
}

TEST(reference_tags, depend_on_both_numbers_and_on_the_object) {
    datastore first;
    datastore second;
    auto tag = first.generate_reference_tag(1, 2);
    EXPECT_EQ(first.generate_reference_tag(1, 2), tag);
    EXPECT_NE(first.generate_reference_tag(2, 1), tag);
    EXPECT_NE(first.generate_reference_tag(1, 3), tag);
    EXPECT_NE(second.generate_reference_tag(1, 2), tag);
}

}  // namespace limestone::testing
