// SPDX-License-Identifier: Apache-2.0
// How fast the directory of a former primary becomes a replica of the one that has taken over.
//
// Both have the same log. The former one has a few sessions more, which go, and lacks what the new primary wrote since.
// The clock runs from the start of `tgreplica --rewind` until the new primary reports PROPAGATED.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "commit.h"
#include "journaled_datastore.h"
#include "measure.h"
#include "replica_process.h"

namespace bench {

namespace {

constexpr std::size_t piece = 1U << 20U;

// A socket, closed at the end of its life.
class socket_end {
public:
    explicit socket_end(int descriptor) : descriptor_(check(descriptor, "socket")) {}
    ~socket_end() { ::close(descriptor_); }
    socket_end(socket_end const&) = delete;
    socket_end& operator=(socket_end const&) = delete;
    socket_end(socket_end&&) = delete;
    socket_end& operator=(socket_end&&) = delete;
    [[nodiscard]] int descriptor() const noexcept { return descriptor_; }

private:
    int descriptor_;
};

// Takes what comes, writes it to a file and syncs that, then answers.
void receive(int listening, std::string const& path) {
    socket_end const connection(::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC));
    file const to(path, O_WRONLY | O_CREAT | O_TRUNC);
    std::vector<char> buffer(piece);
    for (;;) {
        auto const count = check(::recv(connection.descriptor(), buffer.data(), buffer.size(), 0), "recv");
        if (count == 0) {
            break;
        }
        to.write({buffer.data(), static_cast<std::size_t>(count)});
    }
    to.sync_data();
    check(::send(connection.descriptor(), "!", 1, MSG_NOSIGNAL), "send");
}

// The least that has to be done: seconds to send so many bytes over TCP to somebody who writes and syncs them.
double send_with_sync(std::uint64_t bytes, std::string const& path) {
    socket_end const listening(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    auto* const named = reinterpret_cast<sockaddr*>(&address);
    check(::bind(listening.descriptor(), named, length), "bind");
    check(::getsockname(listening.descriptor(), named, &length), "getsockname");
    check(::listen(listening.descriptor(), 1), "listen");
    std::vector<char> const buffer(piece, 'v');
    auto const begin = now_seconds();
    std::thread receiving([&] { receive(listening.descriptor(), path); });
    {
        socket_end const connection(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        check(::connect(connection.descriptor(), named, length), "connect");
        for (std::uint64_t sent = 0; sent < bytes;) {
            auto const rest = std::min<std::uint64_t>(bytes - sent, buffer.size());
            sent += static_cast<std::uint64_t>(check(::send(connection.descriptor(), buffer.data(), rest, 0), "send"));
        }
        check(::shutdown(connection.descriptor(), SHUT_WR), "shutdown");
        char answer = 0;
        check(::recv(connection.descriptor(), &answer, 1, 0), "recv");
    }
    receiving.join();
    auto const seconds = now_seconds() - begin;
    std::filesystem::remove(path);
    return seconds;
}

}  // namespace

fields rejoin(options const& given) {
    constexpr std::size_t channels = 4;
    constexpr std::size_t entries = 1000;
    constexpr std::chrono::milliseconds epoch_length(3);
    auto const sessions = [](std::uint64_t bytes) { return bytes / channels / session_bytes(entries) + 1; };
    auto const lacking = sessions(given.number("--lacking", 50'000'000));
    auto const directory = given.text("--dir");
    auto const former = directory + "/former";
    auto const primary = directory + "/primary";
    {
        journaled_datastore store(former, channels);
        write_sessions(store, channels, sessions(given.number("--bytes", 1'000'000'000)), entries, epoch_length);
        store.journal().wait_for(store.next_epoch(), durability::stored);
    }
    std::filesystem::copy(former, primary, std::filesystem::copy_options::recursive);
    {
        journaled_datastore store(former, channels);
        write_sessions(store, channels, 1, entries, epoch_length);
        store.journal().wait_for(store.next_epoch(), durability::stored);
    }
    auto const port = free_port();
    point_primary_at(port, "async");
    journaled_datastore store(primary, channels);
    write_sessions(store, channels, lacking, entries, epoch_length);
    auto const last = store.next_epoch();
    store.journal().wait_for(last, durability::stored);
    ::sync();  // what was copied must not go on to the disk while something is measured

    auto const bytes = lacking * channels * session_bytes(entries);
    auto const path = directory + "/sent";
    auto const floor_before = send_with_sync(bytes, path);
    auto const begin = now_seconds();
    replica_process const replica(former, port, true);
    auto const listening = now_seconds() - begin;
    store.journal().wait_for(last, durability::propagated);
    auto const seconds = now_seconds() - begin;
    auto const floor_after = send_with_sync(bytes, path);
    if (!std::filesystem::exists(former + "/cut_off")) {
        throw std::runtime_error("nothing was cut off: the directory has not been rewound");
    }
    return {
        {"seconds", seconds}, {"listening_seconds", listening}, {"floor_seconds", (floor_before + floor_after) / 2}};
}

}  // namespace bench
