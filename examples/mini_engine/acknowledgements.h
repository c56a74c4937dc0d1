// SPDX-License-Identifier: Apache-2.0
// The acknowledgements that the engine gave to its clients, kept outside the database: a line
// `<worker> <sequence> <epoch>` says that all records of that worker up to that sequence number are durable.
// Every line is one plain write(2), so that it outlives a SIGKILL of the engine.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace mini_engine {

/// Appends acknowledgements to a file (or a pipe). Calls must not overlap.
class acknowledgement_writer {
public:
    /// Opens or creates the file. Throws `std::runtime_error`.
    explicit acknowledgement_writer(std::string path);
    ~acknowledgement_writer();
    acknowledgement_writer(acknowledgement_writer const&) = delete;
    acknowledgement_writer& operator=(acknowledgement_writer const&) = delete;
    acknowledgement_writer(acknowledgement_writer&&) = delete;
    acknowledgement_writer& operator=(acknowledgement_writer&&) = delete;

    /// Writes one line.
    void write(std::uint64_t worker, std::uint64_t sequence, std::uint64_t epoch);

private:
    std::string path_;
    int descriptor_;
};

/// The highest acknowledged sequence number of each worker. A missing file holds none; an unfinished last line was
/// never delivered and does not count. Throws `std::runtime_error` when a line cannot be read.
std::map<std::uint64_t, std::uint64_t> read_acknowledgements(std::string const& path);

}  // namespace mini_engine
