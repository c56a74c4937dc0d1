// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file status.h
 * Result of the operations that report a status instead of throwing (public API, section 3.3).
 */

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string_view>

namespace limestone {

/// Outcome of an operation; the numbers are part of the binary interface.
enum class status : std::int64_t {
    /// The operation did all it was asked to do.
    ok = 0,
    /// A file that was named does not exist.
    err_not_found = -1,
    /// A file could not be read, written or removed.
    err_permission_error = -2,
    /// A file exists but its content cannot be used.
    err_broken_data = -3,
};

/**
 * Spelling of a status.
 * @return exactly the enumerator's name
 * @note a value that is not an enumerator ends the process with `std::abort()`
 */
[[nodiscard]] constexpr inline std::string_view to_string_view(status value) noexcept {
    switch (value) {
        case status::ok:
            return "ok";
        case status::err_not_found:
            return "err_not_found";
        case status::err_permission_error:
            return "err_permission_error";
        case status::err_broken_data:
            return "err_broken_data";
    }
    std::abort();
}

/// Writes the spelling of `value` to `out`.
inline std::ostream& operator<<(std::ostream& out, status value) {
    return out << to_string_view(value);
}

}  // namespace limestone
