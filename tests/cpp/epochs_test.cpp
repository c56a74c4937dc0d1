// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "test_support.h"
#include "waiting.h"

namespace limestone::testing {

using namespace limestone::api;

namespace {

std::atomic<std::uint64_t> last_reported{0};

void report(std::uint64_t epoch) {
    last_reported.store(epoch);
}

/// An open datastore that collects what the callback reports.
struct reporting_datastore {
    scratch_directory scratch{};
    open_datastore object{settings(scratch.location())};
    told<epoch_id_type> reported{};

    reporting_datastore() {
        object.add_persistent_callback([this](std::size_t epoch) { reported.add(epoch); });
    }

    // Before what the callback uses goes.
    ~reporting_datastore() { object.shutdown(); }

    reporting_datastore(reporting_datastore const&) = delete;
    reporting_datastore& operator=(reporting_datastore const&) = delete;
};

}  // namespace

TEST(epochs, idle_epochs_are_reported_one_by_one) {
    reporting_datastore d;
    d.object.ready();
    EXPECT_EQ(d.object.last_epoch(), 0U);
    for (epoch_id_type epoch = 1; epoch <= 4; ++epoch) {
        d.object.switch_epoch(epoch);
        EXPECT_TRUE(becomes(epoch - 1, [&] { return d.object.last_epoch(); }));
    }
    EXPECT_TRUE(d.reported.becomes({1, 2, 3}));
}

TEST(epochs, an_open_session_holds_its_epoch_back_and_its_end_reports_it) {
    reporting_datastore d;
    auto& channel = d.object.create_channel();
    d.object.ready();
    d.object.switch_epoch(1);
    channel.begin_session();
    channel.add_entry(1, "k", "v", {1, 0});
    d.object.switch_epoch(2);
    d.object.switch_epoch(3);
    EXPECT_TRUE(d.reported.all().empty());
    channel.end_session();
    EXPECT_TRUE(d.reported.becomes({2}));
    EXPECT_EQ(d.object.last_epoch(), 2U);
}

TEST(epochs, a_second_session_of_one_channel_in_the_same_epoch_holds_it_back) {
    reporting_datastore d;
    auto& channel = d.object.create_channel();
    d.object.ready();
    d.object.switch_epoch(5);
    EXPECT_TRUE(d.reported.becomes({4}));
    write(channel, 5, "first", "v");
    channel.begin_session();
    channel.add_entry(1, "second", "v", {5, 1});
    d.object.switch_epoch(6);
    EXPECT_EQ(d.reported.all(), (std::vector<epoch_id_type>{4}));
    EXPECT_LT(d.object.epoch_id_record_finished_for_tests(), 5U);
    channel.end_session();
    EXPECT_TRUE(d.reported.becomes({4, 5}));
    EXPECT_GE(d.object.epoch_id_record_finished_for_tests(), 5U);
}

TEST(epochs, a_report_never_runs_ahead_of_the_record_whatever_the_order_of_sessions) {
    reporting_datastore d;
    auto& c = d.object.create_channel();
    auto& b = d.object.create_channel();
    auto& a = d.object.create_channel();
    d.object.ready();
    d.object.switch_epoch(3);
    EXPECT_TRUE(d.reported.becomes({2}));
    b.begin_session();
    d.object.switch_epoch(5);
    write(a, 5, "a5", "v");
    d.object.switch_epoch(6);
    c.begin_session();
    write(a, 6, "a6", "v");
    d.object.switch_epoch(7);
    EXPECT_EQ(d.reported.all(), (std::vector<epoch_id_type>{2}));
    b.end_session();
    EXPECT_TRUE(d.reported.becomes({2, 5}));
    EXPECT_GE(d.object.epoch_id_record_finished_for_tests(), 5U);
    d.object.shutdown().wait();
    EXPECT_EQ(recover_entries(d.scratch.location()), (std::vector<entry>{{1, "a5", "v"}}));
}

TEST(epochs, the_counters_that_inline_accessors_read_follow_the_core) {
    reporting_datastore d;
    auto& channel = d.object.create_channel();
    d.object.ready();
    d.object.switch_epoch(1);
    channel.begin_session();
    channel.end_session();
    d.object.switch_epoch(2);
    EXPECT_EQ(d.object.epoch_id_switched_for_tests(), 2U);
    EXPECT_TRUE(becomes(1U, [&] { return d.object.epoch_id_informed_for_tests(); }));
    EXPECT_EQ(d.object.epoch_id_record_finished_for_tests(), 1U);
    EXPECT_EQ(d.object.epoch_id_to_be_recorded_for_tests(), 1U);
    EXPECT_EQ(d.object.log_channels_for_tests().size(), 1U);
}

TEST(epochs, a_restart_never_goes_below_an_epoch_that_was_logged) {
    scratch_directory scratch;
    {
        datastore object(settings(scratch.location()));
        auto& channel = object.create_channel();
        object.ready();
        object.switch_epoch(4);
        write(channel, 4, "k", "v");
    }
    datastore object(settings(scratch.location()));
    object.ready();
    EXPECT_GE(object.last_epoch(), 4U);
}

TEST(callbacks, old_form_is_chosen_for_everything_that_takes_one_argument) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    object.add_persistent_callback([](std::size_t) {});
    object.add_persistent_callback([](auto) {});
    object.add_persistent_callback(std::function<void(epoch_id_type)>{});
    object.add_persistent_callback(nullptr);
    object.add_persistent_callback({});
    object.add_persistent_callback(&report);
    object.add_persistent_callback(report);
    object.ready();
    object.switch_epoch(1);
    object.switch_epoch(2);
    EXPECT_TRUE(becomes(1U, [] { return last_reported.load(); }));
}

TEST(callbacks, extended_form_is_told_the_state_besides_the_old_form) {
    reporting_datastore d;
    told<std::pair<epoch_id_type, durability>> states;
    d.object.add_persistent_callback([&states](epoch_id_type epoch, durability state) { states.add({epoch, state}); });
    d.object.ready();
    d.object.switch_epoch(1);
    d.object.switch_epoch(2);
    EXPECT_TRUE(states.becomes({{1, durability::stored}}));
    EXPECT_TRUE(d.reported.becomes({1}));
    d.object.remove_persistent_callback();
    d.object.switch_epoch(3);
    d.object.shutdown();
    EXPECT_EQ(d.object.last_epoch(), 2U);
    EXPECT_EQ(states.all().size(), 1U);
    EXPECT_EQ(d.reported.all().size(), 1U);
}

TEST(callbacks, last_epoch_inside_the_callback_has_the_reported_epoch) {
    scratch_directory scratch;
    open_datastore object(settings(scratch.location()));
    told<std::pair<epoch_id_type, epoch_id_type>> seen;
    object.add_persistent_callback([&](epoch_id_type) {
        seen.add({object.last_epoch(), object.epoch_id_informed_for_tests()});
    });
    object.ready();
    object.switch_epoch(1);
    object.switch_epoch(2);
    EXPECT_TRUE(seen.becomes({{1, 1}}));
    object.shutdown();
}

TEST(callbacks, a_callback_may_remove_itself) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    std::atomic<int> calls{0};
    object.add_persistent_callback([&](epoch_id_type) {
        ++calls;
        object.remove_persistent_callback();
    });
    object.ready();
    for (epoch_id_type epoch = 1; epoch <= 4; ++epoch) {
        object.switch_epoch(epoch);
        EXPECT_TRUE(becomes(epoch - 1, [&] { return object.last_epoch(); }));
    }
    object.shutdown();
    EXPECT_EQ(calls, 1);
}

TEST(callbacks, removing_waits_for_the_call_that_is_running) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    std::mutex mutex;
    std::condition_variable changed;
    bool entered = false;
    bool release = false;
    std::atomic<bool> finished{false};
    object.add_persistent_callback([&](epoch_id_type) {
        std::unique_lock<std::mutex> lock(mutex);
        entered = true;
        changed.notify_all();
        changed.wait(lock, [&] { return release; });
        finished.store(true);
    });
    object.ready();
    object.switch_epoch(1);
    std::thread epochs([&] { object.switch_epoch(2); });
    {
        std::unique_lock<std::mutex> lock(mutex);
        ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(30), [&] { return entered; }));
    }
    std::thread remover([&] {
        object.remove_persistent_callback();
        EXPECT_TRUE(finished.load());
    });
    {
        std::lock_guard<std::mutex> lock(mutex);
        release = true;
    }
    changed.notify_all();
    remover.join();
    epochs.join();
}

TEST(callbacks, what_a_removed_callback_held_is_released) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    auto held = std::make_shared<int>(1);
    object.add_persistent_callback([held](epoch_id_type) {});
    EXPECT_GT(held.use_count(), 1);
    object.ready();
    object.remove_persistent_callback();
    EXPECT_EQ(held.use_count(), 1);
}

TEST(callbacks, other_channels_can_work_while_a_callback_runs) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    auto& channel = object.create_channel();
    std::atomic<bool> worked{false};
    object.add_persistent_callback([&](epoch_id_type) {
        std::thread([&] {
            channel.begin_session();
            channel.add_entry(1, "k", "v", {2, 0});
            worked = true;
        }).join();
        object.remove_persistent_callback();
    });
    object.ready();
    object.switch_epoch(1);
    object.switch_epoch(2);
    EXPECT_TRUE(becomes(true, [&] { return worked.load(); }));
    channel.end_session();
}

TEST(callbacks, none_runs_in_ready_or_shutdown) {
    scratch_directory scratch;
    {
        running_datastore object(scratch.location());
        auto& channel = object.channel;
        channel.begin_session();
        channel.end_session();
        object.switch_epoch(2);
    }
    std::atomic<int> calls{0};
    datastore object(settings(scratch.location()));
    object.add_persistent_callback([&](epoch_id_type) { ++calls; });
    object.ready();
    object.shutdown().wait();
    EXPECT_EQ(calls, 0);
}

TEST(boundary_version, only_grows) {
    open_datastore object;
    object.switch_available_boundary_version({5, 1});
    object.switch_available_boundary_version({5, 1});
    object.switch_available_boundary_version({4, 9});
    EXPECT_TRUE(object.get_available_boundary_version_for_tests() == write_version_type(5, 1));
}

}  // namespace limestone::testing
