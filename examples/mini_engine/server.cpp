// SPDX-License-Identifier: Apache-2.0
#include "server.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

#include <limestone/api/log_channel.h>

#include "engine.h"
#include "records.h"

namespace mini_engine {

namespace {

using limestone::api::durability;
using limestone::api::epoch_id_type;
using limestone::api::log_channel;

// Connections at a time; more are told so.
constexpr std::size_t connections_max = 16;
// A request is one line of at most so many bytes.
constexpr std::size_t line_max = 64 * 1024;
constexpr int poll_ms = 100;

volatile std::sig_atomic_t signalled = 0;

int listen_on(std::uint16_t port) {
    int const listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int const yes = 1;
    ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    if (listener < 0 || ::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listener, static_cast<int>(connections_max)) != 0) {
        auto const reason = std::generic_category().message(errno);
        throw std::runtime_error("cannot listen on port " + std::to_string(port) + ": " + reason);
    }
    return listener;
}

bool send_line(int connection, std::string text) {
    text += '\n';
    for (std::string_view rest = text; !rest.empty();) {
        auto const sent = ::send(connection, rest.data(), rest.size(), MSG_NOSIGNAL);
        if (sent <= 0) {
            return false;
        }
        rest.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
}

}  // namespace

server::server(server_options options)
    : options_(std::move(options)), datastore_(make_configuration(options_.directory)) {
    for (std::size_t i = 0; i < connections_max; ++i) {
        idle_.push_back(&datastore_.create_channel());
    }
    auto const awaited = options_.propagated ? durability::propagated : durability::stored;
    datastore_.add_persistent_callback([this, awaited](epoch_id_type epoch, durability state) {
        if (state == awaited) {
            std::lock_guard lock(mutex_);
            durable_ = epoch;
            changed_.notify_all();
        }
    });
    datastore_.recover();
    datastore_.ready();
    epoch_ = datastore_.last_epoch() + 1;
    datastore_.switch_epoch(epoch_);
    listener_ = listen_on(options_.port);
}

server::~server() {
    if (listener_ >= 0) {
        ::close(listener_);
    }
}

void server::run() {
    std::signal(SIGTERM, [](int) { signalled = 1; });
    std::signal(SIGINT, [](int) { signalled = 1; });
    std::thread epoch_thread([this] { advance_epochs(); });
    std::vector<std::thread> threads;
    while (signalled == 0) {
        pollfd waiting{listener_, POLLIN, 0};
        if (::poll(&waiting, 1, poll_ms) <= 0) {
            continue;
        }
        int const connection = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        if (connection < 0) {
            continue;
        }
        std::lock_guard lock(mutex_);
        if (idle_.empty()) {
            send_line(connection, "error too many connections");
            ::close(connection);
            continue;
        }
        auto& channel = *idle_.back();
        idle_.pop_back();
        connections_.push_back(connection);
        threads.emplace_back([this, connection, &channel] { serve(connection, channel); });
    }
    end();
    for (auto& thread : threads) {
        thread.join();
    }
    epoch_thread.join();
    datastore_.shutdown().get();
}

void server::end() {
    stopping_ = true;
    std::lock_guard lock(mutex_);
    for (int const connection : connections_) {
        ::shutdown(connection, SHUT_RDWR);
    }
    changed_.notify_all();
}

void server::advance_epochs() {
    while (!stopping_) {
        std::this_thread::sleep_for(options_.epoch);
        datastore_.switch_epoch(++epoch_);
    }
}

void server::serve(int connection, log_channel& channel) {
    std::string received;
    char part[4096];
    bool good = send_line(connection, "mini_engine " + options_.name);
    while (good) {
        auto const end = received.find('\n');
        if (end != std::string::npos) {
            good = put(connection, channel, received.substr(0, end));
            received.erase(0, end + 1);
            continue;
        }
        auto const size = ::recv(connection, part, sizeof part, 0);
        if (size <= 0 || received.size() > line_max) {
            break;
        }
        received.append(part, static_cast<std::size_t>(size));
    }
    std::lock_guard lock(mutex_);
    connections_.erase(std::find(connections_.begin(), connections_.end(), connection));
    idle_.push_back(&channel);
    ::close(connection);
}

bool server::put(int connection, log_channel& channel, std::string const& line) {
    auto const key_at = line.find(' ');
    auto const value_at = line.find(' ', key_at == std::string::npos ? key_at : key_at + 1);
    if (line.rfind("put ", 0) != 0 || value_at == std::string::npos) {
        send_line(connection, "error expected: put <key> <value>");
        return false;
    }
    auto const key = line.substr(key_at + 1, value_at - key_at - 1);
    channel.begin_session();
    epoch_id_type const epoch = channel.current_epoch_id();
    channel.add_entry(records_storage, key, line.substr(value_at + 1), {epoch, 0});
    channel.end_session();
    return wait_until_durable(epoch) && send_line(connection, "ok " + key + ' ' + std::to_string(epoch));
}

bool server::wait_until_durable(epoch_id_type epoch) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return durable_ >= epoch || stopping_; });
    return durable_ >= epoch;
}

}  // namespace mini_engine
