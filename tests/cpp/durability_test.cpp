// SPDX-License-Identifier: Apache-2.0
// Asking and waiting for the durability of an epoch.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include <limestone/api/limestone_exception.h>

#include "test_support.h"
#include "waiting.h"

namespace limestone::testing {

using namespace limestone::api;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds long_enough{30'000};

}  // namespace

TEST(durability, an_epoch_is_stored_when_its_sessions_have_ended_and_never_propagated_without_replication) {
    scratch_directory scratch;
    running_datastore object(scratch.location());
    auto& channel = object.channel;
    channel.begin_session();
    channel.add_entry(1, "k", "v", {1, 0});
    object.switch_epoch(2);
    EXPECT_FALSE(query_durability(object, 1).stored);
    channel.end_session();
    ASSERT_TRUE(wait_durability(object, 1, durability::stored, long_enough));
    auto found = query_durability(object, 1);
    EXPECT_TRUE(found.stored);
    EXPECT_FALSE(found.propagated);
    EXPECT_FALSE(found.degraded);
    EXPECT_FALSE(found.replicated);
    EXPECT_FALSE(query_durability(object, 2).stored);
}

TEST(durability, waiting_ends_when_the_epoch_is_stored) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    object.ready();
    object.switch_epoch(1);
    EXPECT_FALSE(wait_durability(object, 1, durability::stored, milliseconds{0}));
    EXPECT_FALSE(wait_durability(object, 1, durability::stored, milliseconds{20}));
    bool reached = false;
    std::thread waiter([&] { reached = wait_durability(object, 1, durability::stored, long_enough); });
    object.switch_epoch(2);
    waiter.join();
    EXPECT_TRUE(reached);
}

TEST(durability, waiting_for_what_cannot_come_is_an_error) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    object.ready();
    object.switch_epoch(1);
    EXPECT_THROW((void)wait_durability(object, 1, durability::propagated, long_enough), limestone_exception);
    std::atomic<bool> refused{false};
    object.add_persistent_callback([&](epoch_id_type) {
        try {
            (void)wait_durability(object, 2, durability::stored, long_enough);
        } catch (limestone_exception const&) {
            refused = true;
        }
    });
    object.switch_epoch(2);
    EXPECT_TRUE(becomes(true, [&] { return refused.load(); }));
    std::thread ender([&] { object.shutdown(); });
    EXPECT_THROW((void)wait_durability(object, 9, durability::stored, long_enough), limestone_exception);
    ender.join();
    datastore empty;
    EXPECT_THROW((void)query_durability(empty, 1), limestone_exception);
}

TEST(durability, the_status_is_the_document_of_the_data_store_through_its_whole_life) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    EXPECT_NE(query_status(object).find(R"("role":"primary")"), std::string::npos);
    object.ready();
    object.switch_epoch(1);
    object.switch_epoch(2);
    ASSERT_TRUE(wait_durability(object, 1, durability::stored, long_enough));
    auto document = query_status(object);
    EXPECT_NE(document.find(R"("stored_epoch":1)"), std::string::npos) << document;
    EXPECT_EQ(document.front(), '{');
    EXPECT_EQ(document.back(), '}');
    object.shutdown();
    EXPECT_NE(query_status(object).find(R"("state":"stopped")"), std::string::npos);
    EXPECT_THROW((void)query_status(*std::make_unique<datastore>()), limestone_exception);
}

}  // namespace limestone::testing
