// SPDX-License-Identifier: Apache-2.0
// An engine that replicates to the program tgreplica.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "test_support.h"

namespace limestone::testing {

using namespace limestone::api;

namespace {

constexpr std::chrono::milliseconds long_enough{60'000};

/// A port that nobody listens on now.
std::uint16_t free_port() {
    int socket = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* any = reinterpret_cast<sockaddr*>(&address);  // NOLINT(cppcoreguidelines-pro-type-reinterpret-cast)
    EXPECT_EQ(::bind(socket, any, size), 0);
    EXPECT_EQ(::getsockname(socket, any, &size), 0);
    ::close(socket);
    return ntohs(address.sin_port);
}

/// Sets an environment variable while it lives.
struct environment_variable {
    const char* name;
    environment_variable(const char* variable, std::string const& value) : name(variable) {
        ::setenv(name, value.c_str(), 1);
    }
    environment_variable(environment_variable const&) = delete;
    environment_variable& operator=(environment_variable const&) = delete;
    ~environment_variable() { ::unsetenv(name); }
};

/// The program, serving a directory until it is destroyed.
class replica_process {
public:
    explicit replica_process(std::filesystem::path const& directory) {
        std::filesystem::create_directory(directory);
        pid_ = ::fork();
        if (pid_ == 0) {
            ::execl(LIMESTONE_TGREPLICA, "tgreplica", directory.c_str(), nullptr);
            ::_exit(127);
        }
    }

    ~replica_process() { EXPECT_EQ(stop(), 0); }

    replica_process(replica_process const&) = delete;
    replica_process& operator=(replica_process const&) = delete;

    /// Ends it as an operator does and returns its exit code.
    int stop() {
        if (pid_ > 0) {
            ::kill(pid_, SIGTERM);
            int status = 0;
            ::waitpid(pid_, &status, 0);
            code_ = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
            pid_ = 0;
        }
        return code_;
    }

private:
    pid_t pid_{};
    int code_{};
};

class replication : public ::testing::Test {
protected:
    void SetUp() override {
        if (std::string(LIMESTONE_TGREPLICA).empty()) {
            GTEST_SKIP() << "built without tgreplica";
        }
    }
    scratch_directory scratch{};
    environment_variable endpoint{"TSURUGI_REPLICATION_ENDPOINT", "tcp://127.0.0.1:" + std::to_string(free_port())};
    std::filesystem::path standby{scratch.path() / "standby"};
};

void write(datastore& object, log_channel& channel, epoch_id_type epoch) {
    object.switch_epoch(epoch);
    channel.begin_session();
    channel.add_entry(1, "key " + std::to_string(epoch), "value", {epoch, 0});
    channel.end_session();
    object.switch_epoch(epoch + 1);
}

}  // namespace

TEST_F(replication, the_unchanged_callback_waits_for_the_replica_and_the_other_tells_both_states) {
    replica_process replica(standby);
    std::atomic<epoch_id_type> notified{0};
    std::mutex mutex;
    std::vector<epoch_id_type> stored;
    std::vector<epoch_id_type> propagated;
    {
        datastore object(settings(scratch.location()));
        auto& channel = object.create_channel();
        object.add_persistent_callback([&](epoch_id_type epoch) {
            // Never before the replica has it.
            EXPECT_TRUE(query_durability(object, epoch).propagated);
            notified = epoch;
        });
        object.add_persistent_callback([&](epoch_id_type epoch, durability state) {
            std::lock_guard<std::mutex> lock(mutex);
            (state == durability::stored ? stored : propagated).push_back(epoch);
        });
        object.ready();
        for (epoch_id_type epoch = 1; epoch <= 20; ++epoch) {
            write(object, channel, epoch);
        }
        ASSERT_TRUE(wait_durability(object, 20, durability::propagated, long_enough));
        auto found = query_durability(object, 20);
        EXPECT_TRUE(found.stored && found.propagated && found.replicated);
        EXPECT_FALSE(found.degraded);
        object.shutdown();
    }
    EXPECT_EQ(notified, 20U);
    EXPECT_EQ(stored.back(), 20U);
    EXPECT_EQ(propagated.back(), 20U);
    EXPECT_EQ(replica.stop(), 0);
    ::unsetenv("TSURUGI_REPLICATION_ENDPOINT");
    EXPECT_EQ(recover_entries(standby), recover_entries(scratch.location()));
}

TEST_F(replication, an_engine_takes_over_on_the_directory_of_the_replica) {
    std::vector<entry> acknowledged;
    {
        replica_process replica(standby);
        datastore object(settings(scratch.location()));
        auto& channel = object.create_channel();
        object.ready();
        for (epoch_id_type epoch = 1; epoch <= 5; ++epoch) {
            write(object, channel, epoch);
        }
        ASSERT_TRUE(wait_durability(object, 5, durability::propagated, long_enough));
        EXPECT_EQ(replica.stop(), 0);
        object.shutdown();
    }
    ::unsetenv("TSURUGI_REPLICATION_ENDPOINT");
    datastore object(settings(standby));
    auto& channel = object.create_channel();
    object.ready();
    EXPECT_EQ(entries_of(object).size(), 5U);
    EXPECT_GE(object.last_epoch(), 5U);
    write(object, channel, object.last_epoch() + 1);
    object.shutdown();
    EXPECT_EQ(recover_entries(standby).size(), 6U);
}

TEST_F(replication, a_shutdown_without_the_replica_ends) {
    environment_variable const timeout("TSURUGI_REPLICATION_TIMEOUT_MS", "1000");
    auto begun = std::chrono::steady_clock::now();
    datastore object(settings(scratch.location()));
    auto& channel = object.create_channel();
    object.ready();
    write(object, channel, 1);
    EXPECT_TRUE(wait_durability(object, 1, durability::stored, long_enough));
    EXPECT_FALSE(query_durability(object, 1).propagated);
    object.shutdown();
    EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds{10});
}

}  // namespace limestone::testing
