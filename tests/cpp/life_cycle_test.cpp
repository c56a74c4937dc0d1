// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "test_support.h"
#include "waiting.h"

namespace limestone::testing {

using namespace limestone::api;

namespace {

std::set<std::string> names_in(std::filesystem::path const& directory) {
    std::set<std::string> names;
    for (auto const& entry : std::filesystem::directory_iterator(directory)) {
        names.insert(entry.path().filename());
    }
    return names;
}

}  // namespace

TEST(life_cycle, what_was_written_is_there_after_a_restart) {
    scratch_directory scratch;
    {
        running_datastore object(scratch.location());
        auto& channel = object.channel;
        channel.begin_session();
        channel.add_entry(2, "k2", "v2", {1, 0});
        channel.add_entry(2, "k", "v", {1, 1});
        channel.add_entry(2, "gone", "x", {1, 2});
        channel.remove_entry(2, "gone", {1, 3});
        channel.add_storage(3, {1, 4});
        channel.add_entry(3, "hidden", "x", {1, 5});
        channel.truncate_storage(3, {1, 6});
        channel.add_entry(4, "hidden", "x", {1, 5});
        channel.remove_storage(4, {1, 6});
        channel.add_entry(5, "", "", {1, 0}, {});
        channel.end_session();
        object.switch_epoch(2);
        EXPECT_TRUE(becomes(1U, [&] { return object.last_epoch(); }));
        object.shutdown().wait();
    }
    auto expected = std::vector<entry>{{2, "k", "v"}, {2, "k2", "v2"}, {5, "", ""}};
    EXPECT_EQ(recover_entries(scratch.location()), expected);
}

TEST(life_cycle, keys_and_values_may_be_any_bytes_including_none_at_all) {
    scratch_directory scratch;
    std::string const zeros("\0\0\xff", 3);
    {
        running_datastore object(scratch.location());
        auto& channel = object.channel;
        channel.begin_session();
        channel.add_entry(1, std::string_view{}, std::string_view{}, {1, 0});
        channel.add_entry(1, zeros, zeros, {1, 0});
        channel.remove_entry(2, std::string_view{}, {1, 0});
        channel.end_session();
        object.switch_epoch(2);
    }
    auto expected = std::vector<entry>{{1, "", ""}, {1, zeros, zeros}};
    EXPECT_EQ(recover_entries(scratch.location()), expected);
}

TEST(life_cycle, a_new_location_holds_three_files_and_the_blob_directory) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    EXPECT_EQ(object.last_epoch(), 0U);
    EXPECT_EQ(names_in(scratch.location()),
              (std::set<std::string>{"blob", "compaction_catalog", "epoch", "limestone-manifest.json"}));
}

TEST(life_cycle, a_datastore_that_never_became_ready_is_destroyed_cleanly) {
    scratch_directory scratch;
    { auto object = std::make_shared<datastore>(settings(scratch.location())); }
    std::unique_ptr<datastore> object(new datastore(settings(scratch.location())));
    object->create_channel();
    object.reset();
    EXPECT_EQ(recover_entries(scratch.location()), std::vector<entry>{});
}

TEST(life_cycle, an_empty_datastore_can_only_be_shut_down_and_destroyed) {
    datastore object;
    EXPECT_EQ(object.last_epoch(), 0U);
    object.shutdown().wait();
    object.shutdown().wait();
}

TEST(life_cycle, shutdown_can_be_repeated_in_every_state_and_its_future_is_ready) {
    scratch_directory scratch;
    {
        datastore object(settings(scratch.location()));
        EXPECT_EQ(object.shutdown().wait_for(std::chrono::seconds(0)), std::future_status::ready);
        object.shutdown().get();
    }
    datastore object(settings(scratch.location()));
    object.ready();
    EXPECT_EQ(object.shutdown().wait_for(std::chrono::seconds(0)), std::future_status::ready);
    object.shutdown().get();
}

TEST(life_cycle, the_location_can_be_opened_again_while_the_object_that_was_shut_down_lives) {
    scratch_directory scratch;
    datastore first(settings(scratch.location()));
    auto& channel = first.create_channel();
    first.ready();
    first.switch_epoch(1);
    write(channel, 1, "k", "v");
    first.switch_epoch(2);
    first.shutdown().wait();

    datastore second(settings(scratch.location()));
    second.ready();
    EXPECT_EQ(entries_of(second), (std::vector<entry>{{1, "k", "v"}}));
    EXPECT_EQ(first.last_epoch(), 1U);
}

TEST(life_cycle, two_locations_are_open_at_the_same_time) {
    scratch_directory scratch;
    datastore first(settings(scratch.path() / "a"));
    datastore second(settings(scratch.path() / "b"));
    first.ready();
    second.ready();
}

TEST(life_cycle, late_calls_after_shutdown_are_harmless) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    object.ready();
    object.switch_epoch(1);
    object.switch_epoch(2);
    object.shutdown().wait();
    object.switch_epoch(3);
    EXPECT_EQ(object.last_epoch(), 1U);
    object.switch_available_boundary_version({1, 0});
    EXPECT_FALSE(static_cast<bool>(object.get_blob_file(1)));
    object.remove_persistent_callback();
}

TEST(life_cycle, an_object_that_was_shut_down_becomes_ready_again) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    auto& channel = object.create_channel();
    object.ready();
    std::vector<entry> expected;
    for (epoch_id_type epoch : {1, 3, 5}) {
        object.switch_epoch(epoch);
        auto key = "k" + std::to_string(epoch);
        write(channel, epoch, key, "v");
        object.switch_epoch(epoch + 1);
        expected.push_back({1, key, "v"});
        object.shutdown().wait();
        object.recover();
        object.ready();
        EXPECT_EQ(entries_of(object), expected);
        EXPECT_EQ(object.last_epoch(), epoch);
    }
    object.shutdown().wait();
    EXPECT_EQ(recover_entries(scratch.location()), expected);
}

TEST(life_cycle, a_session_left_open_at_shutdown_never_happened) {
    scratch_directory scratch;
    {
        datastore object(settings(scratch.location()));
        auto& first = object.create_channel();
        auto& second = object.create_channel();
        object.ready();
        object.switch_epoch(1);
        write(first, 1, "ended", "v");
        object.switch_epoch(2);
        second.begin_session();
        second.add_entry(1, "open", "v", {2, 0});
        object.switch_epoch(3);
        EXPECT_TRUE(becomes(1U, [&] { return object.last_epoch(); }));
    }
    EXPECT_EQ(recover_entries(scratch.location()), (std::vector<entry>{{1, "ended", "v"}}));
}

TEST(life_cycle, switching_epochs_while_ready_runs_is_harmless) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    std::atomic<bool> stop{false};
    std::thread epochs([&] {
        for (epoch_id_type epoch = 1; !stop.load(); ++epoch) {
            object.switch_epoch(epoch);
            std::this_thread::yield();
        }
    });
    object.ready();
    stop.store(true);
    epochs.join();
}

TEST(life_cycle, recovery_threads_of_zero_or_less_stand_for_the_default) {
    scratch_directory scratch;
    {
        running_datastore object(scratch.location());
        object.write(1, "k", "v");
        object.switch_epoch(2);
    }
    for (int threads : {0, -1}) {
        auto conf = settings(scratch.location());
        conf.set_recover_max_parallelism(threads);
        datastore object(conf);
        object.recover();
        object.ready();
        EXPECT_EQ(entries_of(object).size(), 1U);
    }
}

TEST(channels, three_hundred_of_them_make_no_file_until_used) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    auto before = names_in(scratch.location());
    std::vector<log_channel*> channels;
    for (int i = 0; i < 300; ++i) {
        channels.push_back(&object.create_channel());
    }
    EXPECT_EQ(names_in(scratch.location()), before);
    EXPECT_EQ(channels.back()->file_path().string(), (scratch.location() / "pwal_0299").string());
    object.ready();
    object.switch_epoch(1);
    write(*channels[123], 1, "k", "v");
    std::set<std::string> files;
    for (auto const& name : names_in(scratch.location())) {
        if (name.rfind("pwal_", 0) == 0) {
            files.insert(name);
        }
    }
    EXPECT_EQ(files, (std::set<std::string>{"pwal_0123"}));
}

TEST(channels, a_session_may_begin_and_end_on_different_threads) {
    scratch_directory scratch;
    {
        running_datastore object(scratch.location());
        auto& channel = object.channel;
        std::thread([&] { channel.begin_session(); }).join();
        EXPECT_EQ(channel.current_epoch_id(), 1U);
        std::thread([&] { channel.add_entry(1, "k", "v", {1, 0}); }).join();
        std::thread([&] { channel.end_session(); }).join();
        EXPECT_EQ(channel.finished_epoch_id(), 1U);
        object.switch_epoch(2);
    }
    EXPECT_EQ(recover_entries(scratch.location()).size(), 1U);
}

TEST(channels, a_session_before_ready_is_recovered_by_it) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    auto& channel = object.create_channel();
    write(channel, 1, "k", "v");
    object.ready();
    EXPECT_EQ(entries_of(object), (std::vector<entry>{{1, "k", "v"}}));
}

TEST(life_cycle, an_aborted_session_leaves_nothing_and_its_epoch_completes) {
    scratch_directory scratch;
    {
        told<epoch_id_type> reported;
        datastore object(settings(scratch.location()));
        auto& channel = object.create_channel();
        object.add_persistent_callback([&](epoch_id_type epoch) { reported.add(epoch); });
        object.ready();
        channel.abort_session(status::ok, "none is open");
        object.switch_epoch(1);
        write(channel, 1, "before", "v");
        object.switch_epoch(2);
        channel.begin_session();
        channel.add_entry(1, "small", "v", {2, 0});
        channel.add_entry(1, "large", std::string(1'000'000, 'v'), {2, 1});
        object.switch_epoch(3);
        EXPECT_TRUE(reported.becomes({1}));
        channel.abort_session(status::err_broken_data, "does not go on");
        EXPECT_TRUE(reported.becomes({1, 2}));
        EXPECT_EQ(channel.current_epoch_id(), UINT64_MAX);
        EXPECT_EQ(channel.finished_epoch_id(), 1U);
        write(channel, 3, "behind", "v");
        object.switch_epoch(4);
    }
    EXPECT_EQ(recover_entries(scratch.location()), (std::vector<entry>{{1, "before", "v"}, {1, "behind", "v"}}));
}

}  // namespace limestone::testing
