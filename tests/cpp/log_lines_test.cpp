// SPDX-License-Identifier: Apache-2.0
// The lines that operators and tools look for (public API, sections 2.2 and 15.3).
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>

#include <glog/logging.h>

#include "test_support.h"

namespace limestone::testing {

using namespace limestone::api;

namespace {

/// Collects what is logged while it lives.
class log_collector : public google::LogSink {
public:
    log_collector() { google::AddLogSink(this); }
    ~log_collector() override { google::RemoveLogSink(this); }

    void send(google::LogSeverity severity, const char* /*full_filename*/, const char* /*base_filename*/, int /*line*/,
              const google::LogMessageTime& /*time*/, const char* message, std::size_t size) override {
        std::lock_guard<std::mutex> lock(mutex_);
        lines_.emplace_back(severity, std::string(message, size));
    }

    /// Whether a line of this severity contains `text`.
    bool has(google::LogSeverity severity, std::string const& text) {
        std::lock_guard<std::mutex> lock(mutex_);
        return std::any_of(lines_.begin(), lines_.end(), [&](auto const& line) {
            return line.first == severity && line.second.find(text) != std::string::npos;
        });
    }

    /// All lines; each must have the prefix that scanners look for.
    std::vector<std::string> lines_without_prefix() {
        std::lock_guard<std::mutex> lock(mutex_);
        std::vector<std::string> bad;
        for (auto const& [severity, line] : lines_) {
            if (line.rfind("/:limestone", 0) != 0) {
                bad.push_back(line);
            }
        }
        return bad;
    }

private:
    std::mutex mutex_{};
    std::vector<std::pair<google::LogSeverity, std::string>> lines_{};
};

}  // namespace

TEST(log_lines, construction_tells_the_settings) {
    scratch_directory scratch;
    log_collector log;
    datastore object(settings(scratch.location()));
    EXPECT_TRUE(log.has(google::GLOG_INFO,
                        "/:limestone:config:datastore setting log location = " + scratch.location().string()));
    EXPECT_TRUE(
        log.has(google::GLOG_INFO, "/:limestone:config:datastore setting the number of recover process thread = 2"));
    EXPECT_TRUE(log.has(google::GLOG_INFO, "REPLICATION_ASYNC_SESSION_CLOSE: disabled"));
    EXPECT_TRUE(log.has(google::GLOG_INFO, "REPLICATION_ASYNC_GROUP_COMMIT: disabled"));
    EXPECT_TRUE(log.has(google::GLOG_INFO, "REPLICATION_RDMA_SLOTS: not set; RDMA replication disabled"));
    EXPECT_TRUE(log.has(google::GLOG_INFO, "Replica disabled; endpoint valid: 0"));
    object.ready();
    object.shutdown();
    EXPECT_EQ(log.lines_without_prefix(), std::vector<std::string>{});
}

TEST(log_lines, calls_in_the_wrong_state_are_warned_about_and_go_on) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    log_collector log;
    auto warned = [&log](std::string const& text) { return log.has(google::GLOG_WARNING, text); };

    object.recover();
    object.create_channel();
    object.add_persistent_callback([](epoch_id_type) {});
    object.add_snapshot_callback([](write_version_type) {});
    EXPECT_FALSE(warned("ready()"));

    (void)object.get_snapshot();
    (void)object.get_blob_file(1);
    object.switch_epoch(1);
    object.switch_safe_snapshot({1, 0}, true);
    object.remove_persistent_callback();
    for (std::string method :
         {"get_snapshot", "get_blob_file", "switch_epoch", "switch_safe_snapshot", "remove_persistent_callback"}) {
        EXPECT_TRUE(warned("/:limestone:api:datastore:" + method + ' ' + method + " called before ready()")) << method;
    }

    object.ready();
    object.recover();
    object.create_channel();
    object.add_persistent_callback([](epoch_id_type) {});
    object.add_snapshot_callback([](write_version_type) {});
    for (std::string method : {"recover", "create_channel", "add_persistent_callback", "add_snapshot_callback"}) {
        EXPECT_TRUE(warned("/:limestone:api:datastore:" + method + ' ' + method + " called after ready()")) << method;
    }
}

TEST(log_lines, an_epoch_that_does_not_grow_is_curious) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    object.ready();
    object.switch_epoch(5);
    log_collector log;
    object.switch_epoch(5);
    EXPECT_TRUE(log.has(google::GLOG_WARNING, "switch to epoch_id_type of 5 (<=5) is curious"));
    object.switch_epoch(4);
    EXPECT_TRUE(log.has(google::GLOG_WARNING, "switch to epoch_id_type of 4 (<=5) is curious"));
}

TEST(log_lines, a_smaller_boundary_version_is_an_error) {
    datastore object;
    object.switch_available_boundary_version({2, 3});
    log_collector log;
    object.switch_available_boundary_version({1, 4});
    EXPECT_TRUE(log.has(google::GLOG_ERROR,
                        "The new boundary version (1, 4) is smaller than the current boundary version (2, 3)"));
}

TEST(log_lines, a_backup_is_counted_at_its_begin_and_end) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    log_collector log;
    object.begin_backup().notify_end_backup();
    EXPECT_TRUE(log.has(google::GLOG_INFO, "Beginning backup; active backup count: 1"));
    EXPECT_TRUE(log.has(google::GLOG_INFO, "Ending backup; active backup count: 0"));
}

TEST(log_lines, a_backup_that_is_replaced_is_ended) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    object.begin_backup();
    object.begin_backup();
    log_collector log;
    object.begin_backup().notify_end_backup();
    EXPECT_TRUE(log.has(google::GLOG_INFO, "Ending backup; active backup count: 0"));
}

}  // namespace limestone::testing
