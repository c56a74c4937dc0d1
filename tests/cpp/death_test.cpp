// SPDX-License-Identifier: Apache-2.0
// How the process ends when storage fails (public API, sections 2.3, 15.3 and 15.4).
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <thread>

#include <limestone/api/limestone_exception.h>

#include "test_support.h"

namespace limestone::testing {

extern bool enable_exception_throwing;

using namespace limestone::api;

namespace {

void open_at(std::filesystem::path const& location) {
    datastore object(settings(location));
}

void make_ready_at(std::filesystem::path const& location) {
    datastore object(settings(location));
    object.ready();
}

void write(std::filesystem::path const& file, std::string const& content) {
    std::ofstream(file, std::ios::binary) << content;
}

/// A location with one durable session whose second entry is damaged.
void make_corrupted(std::filesystem::path const& location) {
    {
        running_datastore object(location);
        object.write(1, "first", "value");
        object.switch_epoch(2);
    }
    // The byte after the 9-byte session header is the type of the first entry (disk format, section 5).
    std::fstream file(location / "pwal_0000", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(9);
    file.put('\x2a');
}

/// Makes guarded functions throw while it lives.
struct exceptions_enabled {
    exceptions_enabled() { enable_exception_throwing = true; }
    ~exceptions_enabled() { enable_exception_throwing = false; }
};

/// Sets an environment variable while it lives.
struct environment_variable {
    const char* name;
    environment_variable(const char* variable, const char* value) : name(variable) { ::setenv(name, value, 1); }
    ~environment_variable() { ::unsetenv(name); }
};

class death : public ::testing::Test {
protected:
    void SetUp() override { ::testing::FLAGS_gtest_death_test_style = "threadsafe"; }
    scratch_directory scratch{};
};

}  // namespace

TEST_F(death, a_location_that_is_open_cannot_be_opened_again) {
    // The location is made in the child, too: a threadsafe death test runs the test from the beginning.
    datastore first(settings(scratch.location()));
    EXPECT_DEATH(open_at(scratch.location()),
                 "/:limestone:config:datastore another process is using the log directory: .*/log.");
}

TEST_F(death, files_without_a_manifest_are_not_a_data_location) {
    std::filesystem::create_directory(scratch.location());
    write(scratch.location() / "stray", "x");
    EXPECT_DEATH(open_at(scratch.location()),
                 "/:limestone:handle_exception_and_abort Fatal error in datastore: /:limestone unsupported dbdir "
                 "persistent format version: see .*\\(version mismatch: version 0, server supports version 1\\)");
}

TEST_F(death, a_newer_format_is_refused) {
    open_at(scratch.location());
    write(scratch.location() / "limestone-manifest.json",
          R"({"format_version":"1.1","instance_uuid":"8a7c2b1e-5b5e-4f7e-9d0a-111111111111",)"
          R"("persistent_format_version":8})");
    EXPECT_DEATH(
        open_at(scratch.location()),
        "/:limestone unsupported dbdir persistent format version: see .*\\(version mismatch: version 8, server "
        "supports versions 1 through 7\\)(.|\n)*Fatal error in datastore: logdir version mismatch \\(at ");
}

TEST_F(death, a_location_that_cannot_be_created_is_named) {
    auto location = scratch.path() / "missing" / "log";
    EXPECT_DEATH(open_at(location), "limestone.* fail to create");
    EXPECT_DEATH(open_at(location),
                 "/:limestone:handle_exception_and_abort Fatal error in datastore: I/O Error \\(No such file or "
                 "directory\\): fail to create directory: .*/missing/log \\(errno = 2\\)");
}

TEST_F(death, a_plain_file_is_not_a_data_location) {
    write(scratch.location(), "x");
    EXPECT_DEATH(open_at(scratch.location()), "/:limestone:handle_exception_and_abort Fatal error in datastore: ");
}

TEST_F(death, damage_in_the_durable_range_names_cause_and_directory) {
    make_corrupted(scratch.location());
    EXPECT_DEATH(make_ready_at(scratch.location()),
                 "this pwal file is broken: (.|\n)*"
                 "/:limestone recover process failed\\. \\(cause: corruption detected in transaction log data "
                 "directory\\), see (.|\n)*"
                 "/:limestone dblogdir \\(transaction log directory\\): \".*/log\"(.|\n)*"
                 "/:limestone:handle_exception_and_abort Fatal error in ready: dblogdir is corrupted \\(at ");
}

TEST_F(death, no_partitions_and_a_second_partitioning_are_refused) {
    make_ready_at(scratch.location());
    EXPECT_DEATH(
        {
            datastore object(settings(scratch.location()));
            object.ready();
            (void)object.get_snapshot()->get_partitioned_cursors(0);
        },
        "partition count must be greater than 0");
    EXPECT_DEATH(
        {
            datastore object(settings(scratch.location()));
            object.ready();
            auto snapshot = object.get_snapshot();
            (void)snapshot->get_partitioned_cursors(1);
            (void)snapshot->get_partitioned_cursors(1);
        },
        "get_partitioned_cursors\\(\\) was already called once");
}

TEST_F(death, a_write_outside_a_session_is_not_accepted) {
    EXPECT_DEATH(
        {
            datastore object(settings(scratch.location()));
            auto& channel = object.create_channel();
            object.ready();
            channel.add_entry(1, "k", "v", {1, 0});
        },
        "Fatal error in add_entry: ");
}

TEST_F(death, a_callback_that_throws_ends_the_process) {
    EXPECT_DEATH(
        {
            datastore object(settings(scratch.location()));
            object.add_persistent_callback([](epoch_id_type) { throw std::runtime_error("from the callback"); });
            object.ready();
            object.switch_epoch(1);
            object.switch_epoch(2);
        },
        "from the callback");
}

TEST(exceptions_for_tests, guarded_functions_throw_instead_of_ending_the_process) {
    scratch_directory scratch;
    exceptions_enabled const guard;
    try {
        open_at(scratch.path() / "missing" / "log");
        FAIL() << "opened";
    } catch (limestone_exception const& e) {
        EXPECT_EQ(e.type(), exception_type::fatal_error);
        EXPECT_EQ(e.error_code(), ENOENT);
        EXPECT_NE(std::string(e.what()).find("fail to create directory"), std::string::npos);
    }
    make_corrupted(scratch.location());
    EXPECT_THROW(make_ready_at(scratch.location()), limestone_exception);
}

TEST(replication_settings, what_is_not_understood_is_refused_with_the_name_of_the_variable) {
    scratch_directory scratch;
    const std::pair<const char*, const char*> wrong[] = {
        {"TSURUGI_REPLICATION_ENDPOINT", "nonsense"}, {"TSURUGI_REPLICATION_ENDPOINT", ""},
        {"TSURUGI_REPLICATION_MODE", "sometimes"},    {"TSURUGI_REPLICATION_TIMEOUT_MS", "10s"},
        {"TSURUGI_REPLICATION_LANES", "0"},           {"TSURUGI_REPLICATION_NO_SUCH_SETTING", "1"}};
    for (auto const& [name, value] : wrong) {
        environment_variable const variable(name, value);
        try {
            open_at(scratch.location());
            FAIL() << "opened with " << name << "=" << value;
        } catch (limestone_exception const& e) {
            EXPECT_EQ(e.type(), exception_type::initialization_failure);
            EXPECT_NE(std::string(e.what()).find(name), std::string::npos) << e.what();
        }
        EXPECT_FALSE(std::filesystem::exists(scratch.location()));
    }
}

TEST(errors, a_location_that_was_deleted_is_an_error_with_its_number) {
    scratch_directory scratch;
    exceptions_enabled enabled;
    datastore object(settings(scratch.location()));
    object.ready();
    object.switch_epoch(1);
    for (bool ended : {false, true}) {
        if (ended) {
            object.shutdown().wait();
        }
        std::filesystem::remove_all(scratch.location());
        try {
            object.begin_backup(backup_type::standard);
            ADD_FAILURE() << "there is nothing to back up";
        } catch (limestone_exception const& e) {
            EXPECT_EQ(e.error_code(), ENOENT);
            EXPECT_EQ(std::string(e.what()).rfind("I/O Error (No such file or directory): ", 0), 0U) << e.what();
        }
    }
}

}  // namespace limestone::testing
