// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file cursor.h
 * Reads the entries of a snapshot one after the other (public API, section 7.2).
 */

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/filesystem.hpp>
#include <boost/filesystem/fstream.hpp>

#include <limestone/api/storage_id_type.h>

namespace limestone::internal {
class cursor_impl_base;
class cursor_impl;
class partitioned_cursor_impl;
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

class log_entry;
class snapshot;

/**
 * A position in a sequence of entries, before the first one at the beginning.
 *
 * One cursor is used by one thread at a time; different cursors are independent. A cursor may be destroyed at any
 * position and outlives its snapshot.
 */
class cursor {
public:
    ~cursor() noexcept;

    cursor(cursor const&) = delete;
    cursor& operator=(cursor const&) = delete;
    cursor(cursor&&) noexcept = delete;
    cursor& operator=(cursor&&) noexcept = delete;

    /**
     * Moves to the next entry.
     * @return whether there is one; after the end every further call returns `false` again
     * @note a read error ends the process (section 2.3)
     */
    bool next();

    /// Storage of the current entry; valid only after `next()` returned `true`.
    [[nodiscard]] storage_id_type storage() const noexcept;

    /// Replaces `buf` by the key of the current entry; valid only after `next()` returned `true`.
    void key(std::string& buf) const noexcept;

    /// Replaces `buf` by the value of the current entry; valid only after `next()` returned `true`.
    void value(std::string& buf) const noexcept;

private:
    std::unique_ptr<internal::cursor_impl_base> pimpl_;

    explicit cursor(std::unique_ptr<internal::cursor_impl_base> pimpl) noexcept;

    friend class snapshot;
    friend class internal::cursor_impl;
    friend class internal::partitioned_cursor_impl;
    friend struct internal::layout_check;
};

}  // namespace limestone::api
