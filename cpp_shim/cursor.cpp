// SPDX-License-Identifier: Apache-2.0
#include <limestone/api/cursor.h>

#include <utility>

#include "cursor_impl.h"
#include "errors.h"

namespace limestone::api {

cursor::cursor(std::unique_ptr<internal::cursor_impl_base> pimpl) noexcept : pimpl_(std::move(pimpl)) {}

cursor::~cursor() noexcept = default;

bool cursor::next() {
    if (pimpl_->core_ == nullptr) {
        return false;
    }
    bool has_entry = false;
    auto status = limestone_cursor_next(pimpl_->core_, &pimpl_->entry_, &has_entry);
    internal::check_guarded("next", status, LIMESTONE_HERE);
    return has_entry;
}

storage_id_type cursor::storage() const noexcept {
    return pimpl_->entry_.storage;
}

void cursor::key(std::string& buf) const noexcept {
    buf.assign(reinterpret_cast<const char*>(pimpl_->entry_.key), pimpl_->entry_.key_len);
}

void cursor::value(std::string& buf) const noexcept {
    buf.assign(reinterpret_cast<const char*>(pimpl_->entry_.value), pimpl_->entry_.value_len);
}

}  // namespace limestone::api
