// SPDX-License-Identifier: Apache-2.0
#include <limestone/api/snapshot.h>

#include <stdexcept>
#include <utility>

#include "cursor_impl.h"
#include "errors.h"
#include "snapshot_impl.h"

namespace limestone::api {

namespace {

const std::uint8_t* bytes(std::string_view text) noexcept {
    return reinterpret_cast<const std::uint8_t*>(text.data());
}

}  // namespace

snapshot::snapshot(std::unique_ptr<internal::snapshot_impl> pimpl) noexcept : pimpl_(std::move(pimpl)) {}

snapshot::~snapshot() = default;

std::unique_ptr<cursor> snapshot::get_cursor() const {
    limestone_cursor* core = nullptr;
    if (pimpl_->core_ != nullptr) {
        internal::check_guarded("get_cursor", limestone_snapshot_cursor(pimpl_->core_, &core), LIMESTONE_HERE);
    }
    return std::unique_ptr<cursor>(new cursor(std::make_unique<internal::cursor_impl_base>(core)));
}

std::vector<std::unique_ptr<cursor>> snapshot::get_partitioned_cursors(std::size_t n) {
    return internal::guarded("get_partitioned_cursors", [this, n] {
        if (n == 0) {
            throw std::invalid_argument("partition count must be greater than 0");
        }
        if (pimpl_->partitioned_.exchange(true)) {
            throw limestone_exception(
                exception_type::fatal_error,
                internal::with_place("get_partitioned_cursors() was already called once", LIMESTONE_HERE));
        }
        std::vector<limestone_cursor*> cores(n, nullptr);
        if (pimpl_->core_ != nullptr) {
            auto status = limestone_snapshot_partitioned_cursors(pimpl_->core_, n, cores.data());
            if (status != LIMESTONE_OK) {
                internal::throw_core_error(status, LIMESTONE_HERE);
            }
        }
        std::vector<std::unique_ptr<cursor>> cursors;
        cursors.reserve(n);
        for (auto* core : cores) {
            cursors.emplace_back(new cursor(std::make_unique<internal::cursor_impl_base>(core)));
        }
        return cursors;
    });
}

std::unique_ptr<cursor> snapshot::find(storage_id_type storage_id, std::string_view entry_key) const noexcept {
    limestone_cursor* core = nullptr;
    if (pimpl_->core_ != nullptr) {
        auto status = limestone_snapshot_find(pimpl_->core_, storage_id, bytes(entry_key), entry_key.size(), &core);
        internal::check_guarded("find", status, LIMESTONE_HERE);
    }
    return std::unique_ptr<cursor>(new cursor(std::make_unique<internal::cursor_impl_base>(core)));
}

std::unique_ptr<cursor> snapshot::scan(storage_id_type storage_id, std::string_view entry_key,
                                       bool inclusive) const noexcept {
    limestone_cursor* core = nullptr;
    if (pimpl_->core_ != nullptr) {
        auto status =
            limestone_snapshot_scan(pimpl_->core_, storage_id, bytes(entry_key), entry_key.size(), inclusive, &core);
        internal::check_guarded("scan", status, LIMESTONE_HERE);
    }
    return std::unique_ptr<cursor>(new cursor(std::make_unique<internal::cursor_impl_base>(core)));
}

}  // namespace limestone::api
