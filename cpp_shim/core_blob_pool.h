// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include <limestone/api/blob_pool.h>
#include <limestone_core.h>

#include "errors.h"

namespace limestone::internal {

/// A pool of the core, with what its datastore keeps for inline functions of the public headers.
class core_blob_pool : public api::blob_pool {
public:
    /// Lets the core know the next id that was set, or takes the core's over; called around registrations.
    using sync_next_id = std::function<void()>;

    /// Told which ids the pool owned when it is released.
    using on_release = std::function<void(std::vector<api::blob_id_type> const&)>;

    /// Takes the handle `core`.
    core_blob_pool(limestone_blob_pool* core, sync_next_id sync, on_release released) noexcept;

    ~core_blob_pool() override;

    core_blob_pool(core_blob_pool const&) = delete;
    core_blob_pool(core_blob_pool&&) = delete;
    core_blob_pool& operator=(core_blob_pool const&) = delete;
    core_blob_pool& operator=(core_blob_pool&&) = delete;

    void release() override;
    [[nodiscard]] api::blob_id_type register_file(boost::filesystem::path const& file, bool is_temporary_file) override;
    [[nodiscard]] api::blob_id_type register_data(std::string_view data) override;
    [[nodiscard]] api::blob_id_type duplicate_data(api::blob_id_type reference) override;

private:
    template <class Call>
    api::blob_id_type register_by(Call&& call);

    limestone_blob_pool* core_;
    sync_next_id sync_next_id_;
    on_release on_release_;
    std::atomic<bool> released_{false};
    std::mutex ids_mutex_{};
    std::vector<api::blob_id_type> ids_{};
};

/// Throws the core's error `status` of a BLOB function as a `limestone_blob_exception`.
[[noreturn]] void throw_blob_error(std::int32_t status, source_place place);

}  // namespace limestone::internal
