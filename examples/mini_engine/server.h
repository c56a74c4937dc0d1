// SPDX-License-Identifier: Apache-2.0
// A transaction engine for clients: each connection commits one entry at a time and hears when it is durable.
//
// Lines of text. The server greets with `mini_engine <name>`. `put <key> <value>` is answered by `ok <key> <epoch>`
// when the entry is durable, on the replicas too if there are any; `error <reason>` ends the connection.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <limestone/api/datastore.h>
#include <limestone/api/durability.h>

namespace mini_engine {

struct server_options {
    std::string directory;               ///< data location; created when missing
    std::string name;                    ///< told to clients
    std::uint16_t port = 0;              ///< where it listens, on all addresses
    std::chrono::milliseconds epoch{3};  ///< length of an epoch
    bool propagated = false;             ///< an entry is durable when the replicas have it, not before
};

class server {
public:
    /// Opens the data location, recovers it and listens. Throws `std::runtime_error` when it cannot.
    explicit server(server_options options);
    ~server();

    server(server const&) = delete;
    server& operator=(server const&) = delete;

    /// Serves until the process gets SIGTERM or SIGINT, then ends in order: what was answered stays.
    void run();

private:
    void advance_epochs();
    void serve(int connection, limestone::api::log_channel& channel);
    bool put(int connection, limestone::api::log_channel& channel, std::string const& line);
    bool wait_until_durable(limestone::api::epoch_id_type epoch);
    void end();

    server_options options_;
    int listener_ = -1;
    limestone::api::datastore datastore_;
    std::vector<limestone::api::log_channel*> idle_;  // channels that no connection has; under mutex_
    std::vector<int> connections_;                    // open ones; under mutex_
    std::mutex mutex_;
    std::condition_variable changed_;
    limestone::api::epoch_id_type durable_ = 0;  // under mutex_
    std::atomic<limestone::api::epoch_id_type> epoch_{0};
    std::atomic<bool> stopping_{false};
};

}  // namespace mini_engine
