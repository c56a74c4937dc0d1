// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include <limestone/api/limestone_exception.h>
#include <limestone_core.h>

namespace limestone::testing {

/// Makes guarded functions throw `limestone_exception`s instead of ending the process. For tests.
extern bool enable_exception_throwing;

}  // namespace limestone::testing

namespace limestone::internal {

/// Place in the source that found an error.
struct source_place {
    const char* file;
    int line;
};

/// The place of the macro's use.
#define LIMESTONE_HERE (::limestone::internal::source_place{__FILE__, __LINE__})

/// `message` with the suffix ` (at <file name>:<line>)` that the texts of thrown exceptions have (public API, section
/// 4).
std::string with_place(std::string const& message, source_place place);

/// Text of the core's last error on this thread, or that of `status` when there is none.
std::string core_error_text(std::int32_t status);

/**
 * Applies the error policy to the exception that is being handled (public API, section 2.3): rethrows it, or logs FATAL
 * with the name of the guarded function, which ends the process.
 */
[[noreturn]] void handle_exception_and_abort(std::string_view function);

/// Raises the core's error `status` of a guarded function; applies the same policy.
[[noreturn]] void fail_guarded(std::string_view function, std::int32_t status, source_place place);

/// Does what `fail_guarded()` does unless `status` is LIMESTONE_OK.
inline void check_guarded(std::string_view function, std::int32_t status, source_place place) {
    if (__builtin_expect(status != LIMESTONE_OK, 0)) {
        fail_guarded(function, status, place);
    }
}

/// Throws the core's error `status` as a `limestone_exception`.
[[noreturn]] void throw_core_error(std::int32_t status, source_place place);

/// Throws that `function` belongs to a part that is not built yet; `missing` names that part.
[[noreturn]] void throw_not_available(std::string_view function, std::string_view missing, source_place place);

/// Runs `body` as a guarded function.
template <class Body>
auto guarded(std::string_view function, Body&& body) -> std::invoke_result_t<Body> {
    try {
        return body();
    } catch (...) {
        handle_exception_and_abort(function);
    }
}

}  // namespace limestone::internal
