// SPDX-License-Identifier: Apache-2.0
// Online compaction through the C++ interface and the scripts that operators use.
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <future>
#include <iterator>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include <limestone/api/limestone_exception.h>
#include <limestone/api/log_channel.h>

#include "test_support.h"

namespace limestone::testing {

using namespace limestone::api;

namespace {

/// Switches epochs as an engine does until it is destroyed.
class epoch_thread {
public:
    explicit epoch_thread(datastore& target)
        : thread_([this, &target] {
              for (auto epoch = target.last_epoch() + 2; !stop_; ++epoch) {
                  target.switch_epoch(epoch);
                  std::this_thread::sleep_for(std::chrono::milliseconds(1));
              }
          }) {}
    ~epoch_thread() {
        stop_ = true;
        thread_.join();
    }
    epoch_thread(epoch_thread const&) = delete;
    epoch_thread& operator=(epoch_thread const&) = delete;

private:
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

std::string content(std::filesystem::path const& file) {
    std::ifstream stream(file);
    return {std::istreambuf_iterator<char>(stream), {}};
}

std::pair<std::string, int> run_script(std::string const& name, std::string const& arguments) {
    auto command = std::string(LIMESTONE_SCRIPTS_DIR "/") + name + " " + arguments;
    std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
    std::string output;
    for (int c = 0; (c = std::fgetc(pipe.get())) != EOF;) {
        output.push_back(static_cast<char>(c));
    }
    return {output, WEXITSTATUS(pclose(pipe.release()))};
}

}  // namespace

TEST(compaction, leaves_the_live_entries_and_lists_the_rest_as_detached) {
    scratch_directory scratch;
    {
        running_datastore object(scratch.location());
        object.write(1, "k", "old");
        object.switch_epoch(2);
        object.write(2, "k", "new");
        object.switch_epoch(3);
        epoch_thread epochs(object);
        object.compact_with_online();
        EXPECT_TRUE(std::filesystem::exists(scratch.location() / "pwal_0000.compacted"));
    }
    auto [output, exit] = run_script("tgdel_logs.sh", scratch.location());
    EXPECT_EQ(output.rfind("Deleting: " + scratch.location().string() + "/pwal_0000.0", 0), 0U) << output;
    EXPECT_EQ(exit, 0);
    EXPECT_EQ(recover_entries(scratch.location()), (std::vector<entry>{{1, "k", "new"}}));
    auto again = run_script("tgdel_logs.sh", scratch.location());
    EXPECT_EQ(again, std::make_pair(std::string("No files could be deleted.\n"), 0));
}

TEST(compaction, needs_an_epoch) {
    scratch_directory scratch;
    open_datastore object(settings(scratch.location()));
    object.ready();
    try {
        object.compact_with_online();
        FAIL() << "no exception";
    } catch (limestone_exception const& e) {
        EXPECT_NE(std::string(e.what()).find("rotation requires epoch_id > 0, but got epoch_id = 0"), std::string::npos)
            << e.what();
    }
}

TEST(compaction, ends_with_the_shutdown_although_nobody_switches_epochs) {
    scratch_directory scratch;
    running_datastore object(scratch.location());
    object.write(1, "k", "v");
    auto compaction =
        std::async(std::launch::async, [&] { EXPECT_THROW(object.compact_with_online(), limestone_exception); });
    EXPECT_EQ(compaction.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
    object.shutdown().get();
    EXPECT_EQ(compaction.wait_for(std::chrono::seconds(30)), std::future_status::ready);
}

TEST(compaction, is_done_when_a_script_asks_for_it) {
    scratch_directory scratch;
    running_datastore object(scratch.location());
    object.write(1, "k", "v");
    auto [output, exit] = run_script("tgcmpct_logs.sh", scratch.location());
    EXPECT_EQ(output, "Compaction request has been made.\n");
    EXPECT_EQ(exit, 0);
    epoch_thread epochs(object);
    auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    auto detached = [&] {
        return content(scratch.location() / "compaction_catalog").find("DETACHED_PWAL") != std::string::npos;
    };
    while (!detached()) {
        ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "the request is not carried out";
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_FALSE(std::filesystem::exists(scratch.location() / "ctrl/start_compaction"));
}

TEST(compaction, scripts_refuse_what_is_no_data_directory) {
    scratch_directory scratch;
    auto dir = scratch.path().string();
    for (std::string const& name : {std::string("tgcmpct_logs.sh"), std::string("tgdel_logs.sh")}) {
        auto usage = "usage: " + name + " <dblogdir>\n";
        EXPECT_EQ(run_script(name, ""), std::make_pair(usage, 1));
        EXPECT_EQ(run_script(name, dir + " more"), std::make_pair(usage, 1));
        auto not_valid = "Error: '" + dir + "' is not a valid dblogdir.\n" + usage;
        EXPECT_EQ(run_script(name, dir), std::make_pair(not_valid, 1));
    }
}

TEST(compaction, deletes_blobs_below_the_boundary_version) {
    scratch_directory scratch;
    open_datastore object(settings(scratch.location()));
    auto& channel = object.create_channel();
    object.ready();
    std::vector<blob_id_type> ids;
    for (std::uint64_t epoch = 1; epoch <= 2; ++epoch) {
        object.switch_epoch(epoch);
        auto pool = object.acquire_blob_pool();
        ids.push_back(pool->register_data("content"));
        write(channel, epoch, "k", "v", {ids.back()});
        pool->release();
    }
    object.switch_epoch(3);
    object.switch_available_boundary_version({3, 0});
    EXPECT_EQ(object.get_available_boundary_version_for_tests(), write_version_type(3, 0));
    {
        epoch_thread epochs(object);
        object.compact_with_online();
    }
    object.wait_for_blob_file_garbace_collector_for_tests();
    EXPECT_FALSE(static_cast<bool>(object.get_blob_file(ids[0])));
    EXPECT_TRUE(static_cast<bool>(object.get_blob_file(ids[1])));
}

}  // namespace limestone::testing
