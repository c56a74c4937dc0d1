// SPDX-License-Identifier: Apache-2.0
// The part of a datastore that deals with BLOBs.
#include <limestone/api/datastore.h>

#include <atomic>
#include <string>

#include <glog/logging.h>

#include <limestone/api/limestone_exception.h>

#include "core_blob_pool.h"
#include "datastore_impl.h"
#include "errors.h"
#include "state_warnings.h"

namespace limestone::api {

namespace {

/// Characters of `/blob/dir_DD/<16 digits>.blob`, and some more.
constexpr std::size_t path_room = 64;

/// Ids that are kept for `get_persistent_blob_ids_for_tests()`.
constexpr std::size_t persistent_ids_max = 65536;

void raise(std::atomic_uint64_t& counter, std::uint64_t value) noexcept {
    auto before = counter.load();
    while (before < value && !counter.compare_exchange_weak(before, value)) {
    }
}

}  // namespace

std::unique_ptr<blob_pool> datastore::acquire_blob_pool() {
    limestone_blob_pool* core = nullptr;
    auto status = limestone_blob_pool_acquire(impl_->core_, &core);
    if (status != LIMESTONE_OK) {
        internal::throw_blob_error(status, LIMESTONE_HERE);
    }
    auto sync_next_id = [this] {
        limestone_datastore_raise_next_blob_id(impl_->core_, next_blob_id_.load());
        raise(next_blob_id_, limestone_datastore_next_blob_id(impl_->core_));
    };
    auto on_release = [this](std::vector<blob_id_type> const& ids) {
        std::lock_guard<std::mutex> lock(persistent_blob_ids_mutex_);
        for (auto id : ids) {
            persistent_blob_ids_.erase(id);
        }
    };
    return std::make_unique<internal::core_blob_pool>(core, sync_next_id, on_release);
}

blob_reference_tag_type datastore::generate_reference_tag(blob_id_type blob_id, std::uint64_t transaction_id) {
    blob_reference_tag_type tag{};
    if (limestone_reference_tag(impl_->reference_key_.data(), blob_id, transaction_id, &tag) != LIMESTONE_OK) {
        throw limestone_blob_exception(
            exception_type::blob_error,
            std::string("Failed to calculate reference tag: ") + limestone_last_error_message(), 0);
    }
    return tag;
}

blob_file datastore::get_blob_file(blob_id_type reference) {
    internal::warn_before_ready(*impl_, "get_blob_file");
    if (impl_->core_ == nullptr) {
        return blob_file(boost::filesystem::path{}, false);
    }
    auto next = next_blob_id_.load();
    limestone_datastore_raise_next_blob_id(impl_->core_, next);
    std::string path(impl_->location_.size() + path_room, '\0');
    std::size_t length = 0;
    bool available = false;
    auto status = limestone_datastore_blob_file(impl_->core_, reference, path.data(), path.size(), &length, &available);
    if (status != LIMESTONE_OK || length > path.size()) {
        LOG(ERROR) << "/:limestone:api:datastore:get_blob_file " << internal::core_error_text(status);
        return blob_file(boost::filesystem::path{}, false);
    }
    path.resize(length);
    return blob_file(boost::filesystem::path(path), available && reference < next);
}

void datastore::add_persistent_blob_ids(const std::vector<blob_id_type>& blob_ids) {
    limestone_datastore_mark_blobs(impl_->core_, blob_ids.data(), blob_ids.size());
    note_persistent_blob_ids(blob_ids);
}

void datastore::note_persistent_blob_ids(const std::vector<blob_id_type>& blob_ids) {
    std::lock_guard<std::mutex> lock(persistent_blob_ids_mutex_);
    persistent_blob_ids_.insert(blob_ids.begin(), blob_ids.end());
    // The core knows the marks that matter, those of BLOBs that a pool owns. Other ids are never taken out.
    while (persistent_blob_ids_.size() > persistent_ids_max) {
        persistent_blob_ids_.erase(persistent_blob_ids_.begin());
    }
}

std::vector<blob_id_type> datastore::check_and_remove_persistent_blob_ids(const std::vector<blob_id_type>& blob_ids) {
    limestone_datastore_unmark_blobs(impl_->core_, blob_ids.data(), blob_ids.size());
    std::lock_guard<std::mutex> lock(persistent_blob_ids_mutex_);
    std::vector<blob_id_type> without_mark;
    for (auto id : blob_ids) {
        if (persistent_blob_ids_.erase(id) == 0) {
            without_mark.push_back(id);
        }
    }
    return without_mark;
}

void datastore::wait_for_blob_file_garbace_collector_for_tests() const noexcept {
    if (impl_->core_ != nullptr) {
        limestone_datastore_wait_for_blob_collection(impl_->core_);
    }
}

}  // namespace limestone::api
