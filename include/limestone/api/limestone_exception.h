// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file limestone_exception.h
 * Exceptions of the library (public API, section 4). Everything is inline so that they can be caught across libraries.
 */

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <stdexcept>
#include <string>

#include <boost/system/error_code.hpp>

namespace limestone::api {

/// What kind of operation failed.
enum class exception_type {
    /// A BLOB operation; the caller's request failed, the datastore is intact.
    blob_error,
    /// Storage failed; guarded functions end the process with it.
    fatal_error,
    /// A datastore could not be set up.
    initialization_failure,
};

/// Base of all exceptions of the library.
class limestone_exception : public std::runtime_error {
public:
    /// An exception without error number; `message` becomes `what()`.
    explicit limestone_exception(const exception_type type, const std::string& message) noexcept
        : std::runtime_error(message), type_(type) {}

    /// An exception with the error number `error_code`, usually an `errno` value.
    explicit limestone_exception(const exception_type type, const std::string& message, int error_code) noexcept
        : std::runtime_error(message), type_(type), error_code_(error_code) {}

    /// The error number, 0 when there is none.
    [[nodiscard]] int error_code() const noexcept { return error_code_; }

    /// The kind of operation that failed.
    [[nodiscard]] exception_type type() const noexcept { return type_; }

private:
    exception_type type_;
    int error_code_{0};
};

/// A failed system call on a file.
class limestone_io_exception : public limestone_exception {
public:
    /// An exception whose text is `format_message(message, error_code)`.
    explicit limestone_io_exception(const exception_type type, const std::string& message, int error_code) noexcept
        : limestone_exception(type, format_message(message, error_code), error_code) {}

    /// The same for a Boost error code, which is reduced to its number.
    explicit limestone_io_exception(const exception_type type, const std::string& message,
                                    const boost::system::error_code& error_code) noexcept
        : limestone_exception(type, format_message(message, error_code), error_code.value()) {}

    /// `I/O Error (<text of the errno value>): <message> (errno = <number>)`.
    static std::string format_message(const std::string& message, int error_code) noexcept {
        return "I/O Error (" + std::string(std::strerror(error_code)) + "): " + message +
               " (errno = " + std::to_string(error_code) + ")";
    }

    /// The same for a Boost error code, which is reduced to its number.
    static std::string format_message(const std::string& message,
                                      const boost::system::error_code& error_code) noexcept {
        return format_message(message, error_code.value());
    }
};

/// A failed BLOB operation.
class limestone_blob_exception : public limestone_exception {
public:
    /// An exception whose text is `format_message(message, error_code)`.
    explicit limestone_blob_exception(const exception_type type, const std::string& message, int error_code) noexcept
        : limestone_exception(type, format_message(message, error_code), error_code) {}

    /// The same for a Boost error code, which is reduced to its number.
    explicit limestone_blob_exception(const exception_type type, const std::string& message,
                                      const boost::system::error_code& error_code) noexcept
        : limestone_exception(type, format_message(message, error_code), error_code.value()) {}

    /// `Blob Error (<text of the errno value>): <message> (errno = <number>)`.
    static std::string format_message(const std::string& message, int error_code) noexcept {
        return "Blob Error (" + std::string(std::strerror(error_code)) + "): " + message +
               " (errno = " + std::to_string(error_code) + ")";
    }

    /// The same for a Boost error code, which is reduced to its number.
    static std::string format_message(const std::string& message,
                                      const boost::system::error_code& error_code) noexcept {
        return format_message(message, error_code.value());
    }
};

}  // namespace limestone::api
