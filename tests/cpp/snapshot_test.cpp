// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <thread>

#include "test_support.h"

namespace limestone::testing {

using namespace limestone::api;

namespace {

/// Writes `count` entries into storage 1 and returns them in order.
std::vector<entry> fill(std::filesystem::path const& location, int count) {
    running_datastore object(location);
    auto& channel = object.channel;
    channel.begin_session();
    std::vector<entry> entries;
    for (int i = 0; i < count; ++i) {
        char key[16];
        std::snprintf(key, sizeof key, "%08d", i);
        channel.add_entry(1, key, std::string("v") + key, {1, 0});
        entries.emplace_back(1, key, std::string("v") + key);
    }
    channel.end_session();
    object.switch_epoch(2);
    return entries;
}

/// Drains all cursors at the same time, one thread each, and checks that each is ascending.
std::vector<entry> drain_in_parallel(std::vector<std::unique_ptr<cursor>>& cursors) {
    std::vector<std::vector<entry>> parts(cursors.size());
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < cursors.size(); ++i) {
        threads.emplace_back([&, i] { parts[i] = drain(*cursors[i]); });
    }
    std::vector<entry> all;
    for (std::size_t i = 0; i < cursors.size(); ++i) {
        threads[i].join();
        EXPECT_TRUE(std::is_sorted(parts[i].begin(), parts[i].end()));
        all.insert(all.end(), parts[i].begin(), parts[i].end());
    }
    std::sort(all.begin(), all.end());
    return all;
}

}  // namespace

TEST(snapshots, before_ready_are_empty) {
    scratch_directory scratch;
    fill(scratch.location(), 3);
    datastore object(settings(scratch.location()));
    auto snapshot = object.get_snapshot();
    EXPECT_FALSE(snapshot->get_cursor()->next());
    auto cursors = snapshot->get_partitioned_cursors(3);
    ASSERT_EQ(cursors.size(), 3U);
    for (auto& cursor : cursors) {
        EXPECT_FALSE(cursor->next());
    }
}

TEST(snapshots, do_not_see_later_writes) {
    scratch_directory scratch;
    auto expected = fill(scratch.location(), 3);
    datastore object(settings(scratch.location()));
    auto& channel = object.create_channel();
    object.ready();
    object.switch_epoch(object.last_epoch() + 1);
    write(channel, 9, "later", "v");
    object.switch_epoch(object.last_epoch() + 2);
    EXPECT_EQ(entries_of(object), expected);
    EXPECT_EQ(drain(*object.shared_snapshot()->get_cursor()), expected);
}

TEST(snapshots, are_gone_before_the_cursors_without_harm) {
    scratch_directory scratch;
    auto expected = fill(scratch.location(), 10);
    datastore object(settings(scratch.location()));
    object.ready();
    auto snapshot = object.get_snapshot();
    auto cursor = snapshot->get_cursor();
    auto parts = snapshot->get_partitioned_cursors(2);
    snapshot.reset();
    EXPECT_EQ(drain(*cursor), expected);
    EXPECT_EQ(drain_in_parallel(parts), expected);
}

TEST(cursors, keep_answering_false_after_the_end) {
    scratch_directory scratch;
    fill(scratch.location(), 1);
    datastore object(settings(scratch.location()));
    object.ready();
    auto cursor = object.get_snapshot()->get_cursor();
    EXPECT_TRUE(cursor->next());
    EXPECT_FALSE(cursor->next());
    EXPECT_FALSE(cursor->next());
    auto snapshot = object.get_snapshot();
    for (auto& part : snapshot->get_partitioned_cursors(2)) {
        while (part->next()) {
        }
        EXPECT_FALSE(part->next());
        EXPECT_FALSE(part->next());
    }
}

TEST(cursors, replace_the_buffers_content) {
    scratch_directory scratch;
    fill(scratch.location(), 1);
    datastore object(settings(scratch.location()));
    object.ready();
    auto cursor = object.get_snapshot()->get_cursor();
    ASSERT_TRUE(cursor->next());
    std::string buffer = "something much longer than the key and the value";
    cursor->key(buffer);
    EXPECT_EQ(buffer, "00000000");
    cursor->value(buffer);
    EXPECT_EQ(buffer, "v00000000");
    EXPECT_EQ(cursor->storage(), 1U);
}

TEST(cursors, can_be_left_unfinished) {
    scratch_directory scratch;
    fill(scratch.location(), 20000);
    datastore object(settings(scratch.location()));
    object.ready();
    auto snapshot = object.get_snapshot();
    auto cursors = snapshot->get_partitioned_cursors(4);
    EXPECT_TRUE(snapshot->get_cursor()->next());
    cursors[2].reset();
    for (auto& cursor : cursors) {
        if (cursor != nullptr) {
            cursor->next();
        }
    }
}

TEST(partitioned_cursors, are_exactly_as_many_as_asked_even_for_fewer_entries) {
    scratch_directory scratch;
    auto expected = fill(scratch.location(), 3);
    datastore object(settings(scratch.location()));
    object.ready();
    for (std::size_t n : {1U, 2U, 7U, 64U}) {
        auto cursors = object.get_snapshot()->get_partitioned_cursors(n);
        ASSERT_EQ(cursors.size(), n);
        EXPECT_EQ(drain_in_parallel(cursors), expected);
    }
}

TEST(partitioned_cursors, exist_for_an_empty_location) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    object.ready();
    auto cursors = object.get_snapshot()->get_partitioned_cursors(4);
    ASSERT_EQ(cursors.size(), 4U);
    EXPECT_TRUE(drain_in_parallel(cursors).empty());
}

TEST(partitioned_cursors, share_out_every_entry_once) {
    scratch_directory scratch;
    auto expected = fill(scratch.location(), 30000);
    datastore object(settings(scratch.location()));
    object.ready();
    auto cursors = object.get_snapshot()->get_partitioned_cursors(4);
    EXPECT_EQ(drain_in_parallel(cursors), expected);
}

TEST(partitioned_cursors, can_be_drained_one_after_the_other) {
    scratch_directory scratch;
    auto expected = fill(scratch.location(), 30000);
    datastore object(settings(scratch.location()));
    object.ready();
    auto cursors = object.get_snapshot()->get_partitioned_cursors(3);
    std::vector<entry> all;
    for (auto cursor = cursors.rbegin(); cursor != cursors.rend(); ++cursor) {
        auto part = drain(**cursor);
        all.insert(all.end(), part.begin(), part.end());
    }
    std::sort(all.begin(), all.end());
    EXPECT_EQ(all, expected);
}

TEST(snapshots, find_stands_before_the_one_entry_of_a_key) {
    scratch_directory scratch;
    fill(scratch.location(), 1000);
    datastore object(settings(scratch.location()));
    EXPECT_FALSE(object.get_snapshot()->find(1, "00000000")->next()) << "before ready()";
    object.ready();
    auto snapshot = object.get_snapshot();
    EXPECT_EQ(drain(*snapshot->find(1, "00000000")), (std::vector<entry>{{1, "00000000", "v00000000"}}));
    EXPECT_EQ(drain(*snapshot->find(1, "00000999")), (std::vector<entry>{{1, "00000999", "v00000999"}}));
    for (auto const* missing : {"", "0000000", "000000000", "00001000", "z"}) {
        EXPECT_TRUE(drain(*snapshot->find(1, missing)).empty()) << missing;
    }
    EXPECT_TRUE(drain(*snapshot->find(2, "00000000")).empty());
    EXPECT_TRUE(drain(*snapshot->find(0, "00000000")).empty());
}

TEST(snapshots, scan_goes_from_a_key_to_the_end_of_its_storage) {
    scratch_directory scratch;
    auto entries = fill(scratch.location(), 1000);
    {
        datastore object(settings(scratch.location()));
        auto& channel = object.create_channel();
        object.ready();
        object.switch_epoch(object.last_epoch() + 1);
        channel.begin_session();
        for (std::uint64_t storage : {0U, 2U, 256U}) {
            channel.add_entry(storage, "00000500", "other", {2, 0});
        }
        channel.end_session();
        object.switch_epoch(object.last_epoch() + 2);
    }
    datastore object(settings(scratch.location()));
    object.ready();
    std::unique_ptr<cursor> outlives;
    {
        auto snapshot = object.get_snapshot();
        outlives = snapshot->scan(1, "00000990", true);
        EXPECT_EQ(drain(*snapshot->scan(1, "", true)), entries);
        EXPECT_EQ(drain(*snapshot->scan(1, "00000998", false)), std::vector<entry>({entries.back()}));
        EXPECT_EQ(drain(*snapshot->scan(1, "000009981", true)), std::vector<entry>({entries.back()}));
        EXPECT_TRUE(drain(*snapshot->scan(1, "00000999", false)).empty());
        EXPECT_TRUE(drain(*snapshot->scan(3, "", true)).empty());
        EXPECT_EQ(drain(*snapshot->scan(256, "", false)), (std::vector<entry>{{256, "00000500", "other"}}));
    }
    EXPECT_EQ(drain(*outlives), std::vector<entry>(entries.begin() + 990, entries.end()));
}

}  // namespace limestone::testing
