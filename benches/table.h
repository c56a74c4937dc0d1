// SPDX-License-Identifier: Apache-2.0
// The table of all rows.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "measure.h"

namespace bench {

enum class better { lower, higher };

struct row {
    std::string benchmark;
    std::string measure;
    double value;
    better direction;
    std::optional<double> must;
    std::optional<double> aim;
    fields details;

    [[nodiscard]] bool reaches(double limit) const noexcept {
        return direction == better::lower ? value <= limit : value >= limit;
    }
    [[nodiscard]] bool good() const noexcept { return !must || reaches(*must); }
};

/// Writes the rows to the standard output.
void print_table(std::vector<row> const& rows);

/// Writes the rows with their details to a file.
void write_json(std::string const& path, std::string const& scale_name, std::vector<row> const& rows);

}  // namespace bench
