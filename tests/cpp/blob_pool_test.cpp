// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <set>
#include <stdexcept>
#include <thread>

#include <limestone/api/limestone_exception.h>

#include "test_support.h"
#include "waiting.h"

namespace limestone::testing {

using namespace limestone::api;

namespace {

std::string content_of(blob_file const& file) {
    std::ifstream stream(file.path().string(), std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

void write_file(std::filesystem::path const& path, std::string const& content) {
    std::ofstream(path, std::ios::binary) << content;
}

bool is_available(api::datastore& object, blob_id_type id) {
    return static_cast<bool>(object.get_blob_file(id));
}

/// Writes one session with an entry that refers to BLOBs, and makes it durable.
void write_entry(api::datastore& object, log_channel& channel, std::string const& key,
                 std::vector<blob_id_type> const& blobs) {
    auto epoch = object.last_epoch() + 1;
    object.switch_epoch(epoch);
    channel.begin_session();
    channel.add_entry(1, key, "v", {epoch, 0}, blobs);
    channel.end_session();
    object.switch_epoch(epoch + 1);
    EXPECT_TRUE(becomes(epoch, [&] { return object.last_epoch(); }));
}

/// Expects a BLOB exception and gives it back.
template <class Body>
limestone_blob_exception thrown_by(Body&& body, std::string* text) {
    try {
        body();
    } catch (limestone_blob_exception const& e) {
        *text = e.what();
        return e;
    }
    ADD_FAILURE() << "no limestone_blob_exception";
    return limestone_blob_exception(exception_type::fatal_error, "", 0);
}

class blob_pools : public ::testing::Test {
protected:
    scratch_directory scratch_{};
};

}  // namespace

TEST_F(blob_pools, register_data_files_and_duplicates) {
    open_datastore object(settings(scratch_.location()));
    object.ready();
    write_file(scratch_.path() / "copied", "copied content");
    write_file(scratch_.path() / "moved", "moved content");
    auto pool = object.acquire_blob_pool();
    EXPECT_EQ(object.next_blob_id_for_tests(), 1U);
    EXPECT_EQ(pool->register_data(std::string("a\0b", 3)), 1U);
    EXPECT_EQ(pool->register_file((scratch_.path() / "copied").string(), false), 2U);
    EXPECT_EQ(pool->register_file((scratch_.path() / "moved").string(), true), 3U);
    EXPECT_EQ(pool->duplicate_data(2), 4U);
    EXPECT_EQ(pool->register_data({}), 5U);
    EXPECT_EQ(object.next_blob_id_for_tests(), 6U);
    EXPECT_EQ(content_of(object.get_blob_file(1)), std::string("a\0b", 3));
    EXPECT_EQ(content_of(object.get_blob_file(2)), "copied content");
    EXPECT_EQ(content_of(object.get_blob_file(3)), "moved content");
    EXPECT_EQ(content_of(object.get_blob_file(4)), "copied content");
    EXPECT_TRUE(is_available(object, 5));
    EXPECT_FALSE(is_available(object, 6));
    EXPECT_TRUE(std::filesystem::exists(scratch_.path() / "copied"));
    EXPECT_FALSE(std::filesystem::exists(scratch_.path() / "moved"));
}

TEST_F(blob_pools, move_a_file_from_another_file_system) {
    std::filesystem::path memory{"/dev/shm"};
    if (!std::filesystem::is_directory(memory)) {
        GTEST_SKIP() << "no second file system";
    }
    api::datastore object(settings(scratch_.location()));
    object.ready();
    auto source = memory / scratch_.path().filename();
    write_file(source, std::string(300'000, 'x'));
    auto id = object.acquire_blob_pool()->register_file(source.string(), true);
    EXPECT_EQ(content_of(object.get_blob_file(id)), std::string(300'000, 'x'));
    EXPECT_FALSE(std::filesystem::exists(source));
}

TEST_F(blob_pools, release_deletes_what_no_entry_refers_to) {
    open_datastore object(settings(scratch_.location()));
    auto& channel = object.create_channel();
    object.ready();
    auto pool = object.acquire_blob_pool();
    auto other = object.acquire_blob_pool();
    auto kept = pool->register_data("kept");
    auto unused = pool->register_data("unused");
    auto marked = pool->register_data("marked");
    auto unmarked = pool->register_data("unmarked");
    auto foreign = other->register_data("foreign");
    write_entry(object, channel, "k", {kept, unmarked});
    object.add_persistent_blob_ids({marked});
    EXPECT_EQ(object.check_and_remove_persistent_blob_ids({unmarked, unused}), std::vector<blob_id_type>{unused});
    pool->release();
    pool->release();
    EXPECT_TRUE(is_available(object, kept));
    EXPECT_FALSE(is_available(object, unused));
    EXPECT_TRUE(is_available(object, marked));
    EXPECT_FALSE(is_available(object, unmarked));
    EXPECT_TRUE(is_available(object, foreign));
    EXPECT_TRUE(object.get_persistent_blob_ids_for_tests().empty());
}

TEST_F(blob_pools, release_deletes_what_only_an_aborted_session_refers_to) {
    open_datastore object(settings(scratch_.location()));
    auto& channel = object.create_channel();
    object.ready();
    auto pool = object.acquire_blob_pool();
    auto id = pool->register_data("aborted");
    object.switch_epoch(1);
    channel.begin_session();
    channel.add_entry(1, "k", "v", api::write_version_type(1, 0), {id});
    channel.abort_session(limestone::status::err_broken_data, "no commit");
    EXPECT_TRUE(is_available(object, id));
    pool->release();
    EXPECT_FALSE(is_available(object, id));
}

TEST_F(blob_pools, refuse_everything_after_the_release) {
    api::datastore object(settings(scratch_.location()));
    object.ready();
    auto pool = object.acquire_blob_pool();
    auto id = pool->register_data("x");
    pool->release();
    for (auto const& call : std::vector<std::function<void()>>{[&] { (void)pool->register_data("x"); },
                                                               [&] { (void)pool->register_file("/none", false); },
                                                               [&] { (void)pool->duplicate_data(id); }}) {
        try {
            call();
            FAIL() << "nothing was thrown";
        } catch (std::logic_error const& e) {
            EXPECT_STREQ(e.what(), "This pool is already released.");
        }
    }
}

TEST_F(blob_pools, tell_what_went_wrong) {
    open_datastore object(settings(scratch_.location()));
    object.ready();
    auto pool = object.acquire_blob_pool();
    std::string text;
    for (bool is_temporary : {false, true}) {
        auto missing = thrown_by([&] { (void)pool->register_file("/none", is_temporary); }, &text);
        EXPECT_EQ(missing.type(), exception_type::blob_error);
        EXPECT_EQ(missing.error_code(), ENOENT);
        std::string expected =
            "Blob Error (No such file or directory): Source file does not exist: /none (errno = 2) (at ";
        EXPECT_EQ(text.substr(0, expected.size()), expected);
    }
    auto unknown = thrown_by([&] { (void)pool->duplicate_data(77); }, &text);
    EXPECT_EQ(unknown.type(), exception_type::blob_error);
    EXPECT_EQ(unknown.error_code(), 0);
    auto path = (scratch_.location() / "blob" / "dir_77" / "000000000000004d.blob").string();
    std::string expected = "Invalid blob_id: 77. Blob file does not exist: " + path + " (at ";
    EXPECT_EQ(text.substr(0, expected.size()), expected);
    auto next = object.next_blob_id_for_tests();
    EXPECT_EQ(pool->register_data("goes on"), next);
}

TEST_F(blob_pools, never_replace_a_file_when_the_ids_are_used_up) {
    open_datastore object(settings(scratch_.location()));
    object.ready();
    object.set_next_blob_id_for_tests(UINT64_MAX);
    auto pool = object.acquire_blob_pool();
    EXPECT_EQ(pool->register_data("last"), UINT64_MAX);
    EXPECT_EQ(object.next_blob_id_for_tests(), UINT64_MAX);
    std::string text;
    EXPECT_EQ(thrown_by([&] { (void)pool->register_data("again"); }, &text).error_code(), EEXIST);
    EXPECT_EQ(content_of(object.get_blob_file(UINT64_MAX)), "last");
}

TEST_F(blob_pools, fail_before_ready_and_after_shutdown) {
    api::datastore object(settings(scratch_.location()));
    auto pool = object.acquire_blob_pool();
    std::string text;
    EXPECT_EQ(thrown_by([&] { (void)pool->register_data("x"); }, &text).error_code(), 0);
    object.ready();
    auto id = pool->register_data("x");
    object.shutdown();
    EXPECT_EQ(thrown_by([&] { (void)pool->register_data("x"); }, &text).error_code(), 0);
    std::shared_ptr<blob_pool> shared = std::move(pool);
    std::thread([&shared] { shared->release(); }).join();
    EXPECT_TRUE(is_available(object, id));
}

TEST_F(blob_pools, work_from_many_threads) {
    api::datastore object(settings(scratch_.location()));
    object.ready();
    auto pool = object.acquire_blob_pool();
    constexpr int threads = 4;
    constexpr int blobs_each = 25;
    std::vector<std::vector<blob_id_type>> ids(threads);
    std::vector<std::thread> workers;
    for (int thread = 0; thread < threads; ++thread) {
        workers.emplace_back([&, thread] {
            for (int i = 0; i < blobs_each; ++i) {
                ids[thread].push_back(pool->register_data(std::to_string(thread)));
            }
        });
    }
    for (auto& worker : workers) {
        worker.join();
    }
    std::set<blob_id_type> all;
    for (int thread = 0; thread < threads; ++thread) {
        EXPECT_TRUE(std::is_sorted(ids[thread].begin(), ids[thread].end()));
        all.insert(ids[thread].begin(), ids[thread].end());
        EXPECT_EQ(content_of(object.get_blob_file(ids[thread].front())), std::to_string(thread));
    }
    EXPECT_EQ(all.size(), static_cast<std::size_t>(threads * blobs_each));
    pool->release();
    EXPECT_FALSE(is_available(object, *all.begin()));
}

TEST_F(blob_pools, survive_a_restart_with_what_entries_refer_to) {
    blob_id_type kept = 0;
    blob_id_type overwritten = 0;
    blob_id_type unused = 0;
    {
        open_datastore object(settings(scratch_.location()));
        auto& channel = object.create_channel();
        object.ready();
        auto pool = object.acquire_blob_pool();
        kept = pool->register_data("kept");
        overwritten = pool->register_data("overwritten");
        write_entry(object, channel, "kept", {kept});
        write_entry(object, channel, "k", {overwritten});
        write_entry(object, channel, "k", {});
        unused = pool->duplicate_data(kept);
    }
    open_datastore object(settings(scratch_.location()));
    auto& channel = object.create_channel();
    object.ready();
    EXPECT_GT(object.next_blob_id_for_tests(), unused);
    object.wait_for_blob_file_garbace_collector_for_tests();
    EXPECT_EQ(content_of(object.get_blob_file(kept)), "kept");
    EXPECT_FALSE(is_available(object, overwritten));
    EXPECT_FALSE(is_available(object, unused));
    auto pool = object.acquire_blob_pool();
    auto id = pool->duplicate_data(kept);
    EXPECT_GT(id, unused);
    write_entry(object, channel, "again", {id});
    pool->release();
    EXPECT_EQ(content_of(object.get_blob_file(id)), "kept");
}

TEST_F(blob_pools, keep_marks_of_ids_without_a_pool_within_bounds) {
    open_datastore object(settings(scratch_.location()));
    object.ready();
    for (blob_id_type id = 1; id <= 70'000; ++id) {
        object.add_persistent_blob_ids({id});
    }
    EXPECT_LT(object.get_persistent_blob_ids_for_tests().size(), 70'000U);
}

TEST_F(blob_pools, end_every_garbage_collection) {
    for (int round = 0; round < 40; ++round) {
        open_datastore object(settings(scratch_.location()));
        object.ready();
        if (round % 2 == 0) {
            object.wait_for_blob_file_garbace_collector_for_tests();
        }
        (void)object.acquire_blob_pool()->register_data("left to the next start");
    }
}

}  // namespace limestone::testing
