// SPDX-License-Identifier: Apache-2.0
// Opens a directory of the mini engine, recovers it, and compares what is there with what was acknowledged.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>

namespace mini_engine {

struct verify_result {
    std::uint64_t acknowledged = 0;   ///< records that were acknowledged
    std::uint64_t recovered = 0;      ///< records found; more than acknowledged is fine
    std::uint64_t lost = 0;           ///< acknowledged records that are missing or have a wrong value
    std::uint64_t half_sessions = 0;  ///< sessions of which some records are there and some are not
    std::uint64_t wrong_entries = 0;  ///< entries whose value does not belong to their key

    /// Whether the directory holds all it must hold and nothing it must not.
    [[nodiscard]] bool good() const noexcept { return lost == 0 && half_sessions == 0 && wrong_entries == 0; }
};

/// Verifies a directory. What is wrong is described on `report`, the first few cases of it.
verify_result verify(std::string const& directory, std::string const& acknowledgement_file, std::ostream& report);

/// Prints all entries of a directory in cursor order, then the last epoch. Returns the number of entries.
std::uint64_t print_entries(std::string const& directory, std::ostream& out);

}  // namespace mini_engine
