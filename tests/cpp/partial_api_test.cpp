// SPDX-License-Identifier: Apache-2.0
// Tags, the safe snapshot and events: what the original declares and does not do, or does in special builds only.
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include <limestone/api/event.h>

#include "test_support.h"
#include "waiting.h"

namespace limestone::testing {

using namespace limestone::api;

namespace {

void add_tag(datastore& object, std::string name, std::string comments) {
    object.epoch_tag_repository().register_tag(name, comments);
}

std::vector<std::string> tag_names(datastore& object) {
    std::vector<std::string> names;
    for (auto const& tag : object.epoch_tag_repository().list()) {
        names.emplace_back(tag.name());
    }
    return names;
}

/// One event with its texts kept.
struct kept_event {
    event_type type;
    event_result result;
    std::string wal_version;

    bool operator==(kept_event const& other) const {
        return type == other.type && result == other.result && wal_version == other.wal_version;
    }
};

}  // namespace

TEST(tags, outlive_a_restart_with_the_epoch_and_time_of_their_registration) {
    scratch_directory scratch;
    auto before = std::chrono::system_clock::now();
    {
        datastore object(settings(scratch.location()));
        add_tag(object, "at first", "");
        object.ready();
        object.switch_epoch(4);
        object.switch_epoch(8);
        EXPECT_TRUE(becomes(7U, [&] { return object.last_epoch(); }));
        add_tag(object, "später", "mit Kommentar");
        add_tag(object, "später", "the first registration stays");
        add_tag(object, "removed", "");
        object.epoch_tag_repository().unregister_tag("removed");
        object.epoch_tag_repository().unregister_tag("unknown");
    }
    datastore object(settings(scratch.location()));
    EXPECT_EQ(tag_names(object), (std::vector<std::string>{"at first", "später"}));
    auto tag = object.epoch_tag_repository().find("später");
    ASSERT_TRUE(tag.has_value());
    EXPECT_EQ(tag->comments(), "mit Kommentar");
    EXPECT_EQ(tag->epoch_id(), 7U);
    EXPECT_GE(tag->timestamp(), before);
    EXPECT_LE(tag->timestamp(), std::chrono::system_clock::now());
    EXPECT_EQ(object.epoch_tag_repository().find("at first")->epoch_id(), 0U);
    EXPECT_FALSE(object.epoch_tag_repository().find("removed").has_value());
    EXPECT_FALSE(object.epoch_tag_repository().find("\xff").has_value());
}

TEST(tags, a_damaged_file_is_kept_and_neither_stops_the_start_nor_new_tags) {
    scratch_directory scratch;
    {
        datastore object(settings(scratch.location()));
        object.ready();
        add_tag(object, "lost", "");
    }
    auto file = scratch.location() / "limestone-tags.json";
    std::ofstream(file, std::ios::app) << "}";
    {
        datastore object(settings(scratch.location()));
        object.ready();
        EXPECT_TRUE(tag_names(object).empty());
        add_tag(object, "new", "");
    }
    EXPECT_TRUE(std::filesystem::exists(scratch.location() / "limestone-tags.json.damaged.0"));
    datastore object(settings(scratch.location()));
    EXPECT_EQ(tag_names(object), (std::vector<std::string>{"new"}));
}

TEST(tags, are_not_changed_after_shutdown_or_by_texts_that_are_no_texts) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    object.ready();
    add_tag(object, "kept", "");
    add_tag(object, "\xff\xfe", "not UTF-8");
    object.shutdown();
    add_tag(object, "late", "");
    object.epoch_tag_repository().unregister_tag("kept");
    EXPECT_EQ(tag_names(object), (std::vector<std::string>{"kept"}));
}

TEST(safe_snapshot, is_told_in_order_and_never_goes_back) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    std::vector<std::pair<epoch_id_type, std::uint64_t>> told;
    object.add_snapshot_callback([](write_version_type) { FAIL() << "was replaced"; });
    object.add_snapshot_callback([&](write_version_type v) {
        told.emplace_back(v.get_major(), v.get_minor());
        // From within the callback: told when this call has returned.
        if (v.get_major() == 5) {
            object.switch_safe_snapshot({6, 1}, false);
        }
    });
    object.ready();
    object.switch_safe_snapshot({3, 1}, false);
    object.switch_safe_snapshot({3, 1}, false);
    object.switch_safe_snapshot({3, 1}, true);
    object.switch_safe_snapshot({3, 1}, false);
    object.switch_safe_snapshot({2, 9}, true);
    object.switch_safe_snapshot({5, 0}, true);
    std::vector<std::pair<epoch_id_type, std::uint64_t>> const expected{{3, 1}, {3, 1}, {5, 0}, {6, 1}};
    EXPECT_EQ(told, expected);
    object.add_snapshot_callback({});
    object.switch_safe_snapshot({9, 0}, true);
    EXPECT_EQ(told.size(), expected.size());
}

TEST(safe_snapshot, threads_that_move_it_at_once_tell_it_ascending_and_one_at_a_time) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    std::atomic<int> inside{0};
    std::vector<epoch_id_type> told;
    object.add_snapshot_callback([&](write_version_type v) {
        EXPECT_EQ(inside.fetch_add(1), 0);
        told.push_back(v.get_major());
        inside.fetch_sub(1);
    });
    object.ready();
    std::atomic<epoch_id_type> next{1};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            for (auto version = next.fetch_add(1); version <= 2000; version = next.fetch_add(1)) {
                object.switch_safe_snapshot({version, 0}, true);
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    ASSERT_FALSE(told.empty());
    EXPECT_TRUE(std::is_sorted(told.begin(), told.end()));
    EXPECT_EQ(told.back(), 2000U);
}

TEST(events, have_the_fields_of_the_originals_audit_log) {
    scratch_directory scratch;
    auto conf = settings(scratch.location());
    conf.set_instance_id("instance 1");
    conf.set_db_name("tsurugi");
    told<kept_event> events;
    datastore object(conf);
    set_event_callback(object, [&](event const& e) {
        EXPECT_EQ(e.instance_id, "instance 1");
        EXPECT_EQ(e.dbname, "tsurugi");
        EXPECT_EQ(e.pid, ::getpid());
        events.add({e.type, e.result, std::string(e.wal_version)});
    });
    auto& channel = object.create_channel();
    object.ready();
    object.switch_epoch(5);
    write(channel, 5, "k", "v");
    object.switch_epoch(6);
    object.switch_epoch(7);
    std::vector<kept_event> expected{{event_type::wal_started, event_result::success, "0"},
                                     {event_type::wal_stored, event_result::success, "5"}};
    EXPECT_TRUE(becomes(6U, [&] { return object.last_epoch(); }));
    EXPECT_EQ(events.all(), expected) << "an epoch without writes has no record";
    set_event_callback(object, {});
    channel.begin_session();
    channel.end_session();
    object.switch_epoch(8);
    object.shutdown();
    EXPECT_EQ(object.last_epoch(), 7U);
    EXPECT_EQ(events.all(), expected) << "off";
}

TEST(hooks, run_before_the_steps_that_they_are_named_after) {
    class hooked : public datastore {
    public:
        using datastore::datastore;
        std::vector<std::string> called{};
        log_channel* channel{nullptr};
        std::filesystem::path pwal{};

    private:
        void on_begin_session_current_epoch_id_store() noexcept override {
            called.push_back("begin " + std::to_string(channel->current_epoch_id() == UINT64_MAX));
        }
        void on_end_session_finished_epoch_id_store() noexcept override {
            called.push_back("finished " + std::to_string(channel->finished_epoch_id()));
        }
        void on_end_session_current_epoch_id_store() noexcept override {
            called.push_back("current " + std::to_string(channel->finished_epoch_id()) + " " +
                             std::to_string(channel->current_epoch_id()));
        }
        void on_rotate_log_files() noexcept override {
            called.push_back("rotate " + std::to_string(std::filesystem::exists(pwal)));
        }
        void on_switch_epoch_epoch_id_switched_store() noexcept override {
            called.push_back("switch " + std::to_string(epoch_id_switched_for_tests()));
        }
    };
    scratch_directory scratch;
    hooked object(settings(scratch.location()));
    object.channel = &object.create_channel();
    object.ready();
    object.switch_epoch(3);
    object.channel->begin_session();
    object.channel->end_session();
    EXPECT_EQ(object.called, (std::vector<std::string>{"switch 0", "begin 1", "finished 0", "current 3 3"}));
    object.switch_epoch(4);
    object.called.clear();
    object.pwal = (scratch.location() / "pwal_0000").string();
    {
        auto const backup = object.begin_backup(backup_type::transaction);
        EXPECT_EQ(object.called, (std::vector<std::string>{"rotate 1"}));
        EXPECT_FALSE(std::filesystem::exists(object.pwal)) << "the hook came before the rotation";
    }
}

}  // namespace limestone::testing
