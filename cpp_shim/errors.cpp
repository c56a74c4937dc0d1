// SPDX-License-Identifier: Apache-2.0
#include "errors.h"

#include <cstdlib>
#include <exception>
#include <stdexcept>

#include <glog/logging.h>

namespace limestone::testing {

bool enable_exception_throwing = false;

}  // namespace limestone::testing

namespace limestone::internal {

using api::exception_type;
using api::limestone_exception;

namespace {

constexpr std::string_view abort_prefix = "/:limestone:handle_exception_and_abort ";

}  // namespace

std::string with_place(std::string const& message, source_place place) {
    std::string_view file{place.file};
    if (auto slash = file.rfind('/'); slash != std::string_view::npos) {
        file.remove_prefix(slash + 1);
    }
    return message + " (at " + std::string(file) + ":" + std::to_string(place.line) + ")";
}

std::string core_error_text(std::int32_t status) {
    std::string text{limestone_last_error_message()};
    return text.empty() ? limestone_status_text(status) : text;
}

void handle_exception_and_abort(std::string_view function) {
    try {
        throw;
    } catch (limestone_exception const& e) {
        if (testing::enable_exception_throwing || e.type() != exception_type::fatal_error) {
            throw;
        }
        LOG(FATAL) << abort_prefix << "Fatal error in " << function << ": " << e.what();
    } catch (std::runtime_error const& e) {
        LOG(FATAL) << abort_prefix << "Runtime error in " << function << ": " << e.what();
    } catch (std::exception const& e) {
        LOG(FATAL) << abort_prefix << "Unexpected exception in " << function << ": " << e.what();
    } catch (...) {
        LOG(FATAL) << abort_prefix << "Unknown exception in " << function;
    }
    std::abort();  // not reached: LOG(FATAL) does not return
}

void throw_core_error(std::int32_t status, source_place place) {
    auto number = limestone_last_error_errno();
    throw limestone_exception(exception_type::fatal_error, with_place(core_error_text(status), place), number);
}

void fail_guarded(std::string_view function, std::int32_t status, source_place place) {
    try {
        throw_core_error(status, place);
    } catch (...) {
        handle_exception_and_abort(function);
    }
}

void throw_not_available(std::string_view function, std::string_view missing, source_place place) {
    auto text = std::string(function) + " is not available in this version: " + std::string(missing);
    throw limestone_exception(exception_type::fatal_error, with_place(text, place));
}

}  // namespace limestone::internal
