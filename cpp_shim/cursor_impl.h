// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limestone_core.h>

namespace limestone::internal {

/// A core cursor and the entry it stands on.
class cursor_impl_base {
public:
    /// Takes over `core`; null stands for a cursor without entries.
    explicit cursor_impl_base(limestone_cursor* core) noexcept : core_(core) {}

    ~cursor_impl_base() { limestone_cursor_destroy(&core_); }

    cursor_impl_base(cursor_impl_base const&) = delete;
    cursor_impl_base& operator=(cursor_impl_base const&) = delete;
    cursor_impl_base(cursor_impl_base&&) = delete;
    cursor_impl_base& operator=(cursor_impl_base&&) = delete;

    limestone_cursor* core_;
    limestone_entry entry_{};
};

}  // namespace limestone::internal
