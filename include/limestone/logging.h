// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file logging.h
 * Verbosity numbers of the library's VLOG lines (public API, section 3.2). Lines of severity INFO, WARNING, ERROR and
 * FATAL do not depend on them.
 */

#include <cstdint>

namespace limestone {

/// VLOG level of messages about errors.
static constexpr std::int32_t log_error = 10;

/// VLOG level of messages about conditions a person may want to look at.
static constexpr std::int32_t log_warning = 20;

/// VLOG level of messages about the normal course of events.
static constexpr std::int32_t log_info = 30;

/// VLOG level of messages that help to find a mistake; the core's debug messages have it.
static constexpr std::int32_t log_debug = 40;

/// VLOG level of messages that follow single operations; the core's trace messages have it.
static constexpr std::int32_t log_trace = 50;

/// VLOG level of messages too frequent for `log_trace`.
static constexpr std::int32_t log_trace_fine = 70;

}  // namespace limestone
