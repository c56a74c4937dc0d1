// SPDX-License-Identifier: Apache-2.0
// A replica in a process of its own.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace bench {

/// A port of the loopback address that nobody listens on.
std::uint16_t free_port();

/// Sets the environment so that a datastore made in this process replicates to whoever listens on a port.
void point_primary_at(std::uint16_t port, std::string const& mode);

/// Runs `tgreplica` on a directory, listening on the loopback address, until the end of its life.
class replica_process {
public:
    /// Waits until it listens. Port 0 means a free one. With `rewind` it goes back to what it has in common with the
    /// primary.
    explicit replica_process(std::string const& directory, std::uint16_t port = 0, bool rewind = false);
    /// Asks it to end and waits for that.
    ~replica_process();
    replica_process(replica_process const&) = delete;
    replica_process& operator=(replica_process const&) = delete;
    replica_process(replica_process&&) = delete;
    replica_process& operator=(replica_process&&) = delete;

    [[nodiscard]] std::uint16_t port() const noexcept { return port_; }

    /// Sets the environment so that a datastore made in this process replicates here.
    void point_primary_here(std::string const& mode) const { point_primary_at(port_, mode); }
    /// Holds the process up (SIGSTOP), or lets it go on.
    void hold(bool held) const;

private:
    std::uint16_t port_;
    pid_t child_ = -1;
    int output_ = -1;  // open as long as the program may write to it
};

/// Sets the environment so that a datastore made in this process replicates to all of them.
void point_primary_at(std::vector<std::unique_ptr<replica_process>> const& replicas, std::uint64_t quorum,
                      std::string const& mode);

}  // namespace bench
