// SPDX-License-Identifier: Apache-2.0
#include "replica_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>

#include "measure.h"

namespace bench {

namespace {

std::string endpoint(std::uint16_t port) {
    return "tcp://127.0.0.1:" + std::to_string(port);
}

}  // namespace

std::uint16_t free_port() {
    auto const socket = check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    check(::bind(socket, reinterpret_cast<sockaddr*>(&address), length), "bind");
    check(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length), "getsockname");
    ::close(socket);
    return ntohs(address.sin_port);
}

replica_process::replica_process(std::string const& directory, std::uint16_t port, bool rewind)
    : port_(port == 0 ? free_port() : port) {
    constexpr auto const* program = LIMESTONE_TGREPLICA;
    std::filesystem::create_directories(directory);
    std::array<int, 2> ends{};
    check(::pipe2(ends.data(), O_CLOEXEC), "pipe2");
    auto const listen = endpoint(port_);
    child_ = check(::fork(), "fork");
    if (child_ == 0) {
        ::dup2(ends[1], STDOUT_FILENO);
        ::setenv("TSURUGI_REPLICATION_ENDPOINT", listen.c_str(), 1);
        ::unsetenv("TSURUGI_REPLICATION_MODE");
        ::unsetenv("TSURUGI_REPLICATION_REPLICAS");
        ::unsetenv("TSURUGI_REPLICATION_QUORUM");
        // Without it the list of arguments ends early.
        ::execl(program, program, directory.c_str(), rewind ? "--rewind" : nullptr, nullptr);
        ::_exit(127);
    }
    ::close(ends[1]);
    output_ = ends[0];
    std::string output;
    std::array<char, 256> buffer{};
    while (output.find("listening") == std::string::npos) {
        auto const count = ::read(output_, buffer.data(), buffer.size());
        if (count <= 0) {
            throw std::runtime_error(std::string(program) + " ended before it listened");
        }
        output.append(buffer.data(), static_cast<std::size_t>(count));
    }
}

replica_process::~replica_process() {
    ::kill(child_, SIGCONT);
    ::kill(child_, SIGTERM);
    ::waitpid(child_, nullptr, 0);
    ::close(output_);
}

void point_primary_at(std::uint16_t port, std::string const& mode) {
    ::setenv("TSURUGI_REPLICATION_ENDPOINT", endpoint(port).c_str(), 1);
    ::setenv("TSURUGI_REPLICATION_MODE", mode.c_str(), 1);
}

void replica_process::hold(bool held) const {
    check(::kill(child_, held ? SIGSTOP : SIGCONT), "kill");
}

void point_primary_at(std::vector<std::unique_ptr<replica_process>> const& replicas, std::uint64_t quorum,
                      std::string const& mode) {
    std::string list;
    for (auto const& replica : replicas) {
        list += (list.empty() ? "r" : ",r") + std::to_string(replica->port()) + "=" + endpoint(replica->port());
    }
    ::unsetenv("TSURUGI_REPLICATION_ENDPOINT");
    ::setenv("TSURUGI_REPLICATION_REPLICAS", list.c_str(), 1);
    ::setenv("TSURUGI_REPLICATION_QUORUM", std::to_string(quorum).c_str(), 1);
    ::setenv("TSURUGI_REPLICATION_MODE", mode.c_str(), 1);
}

}  // namespace bench
