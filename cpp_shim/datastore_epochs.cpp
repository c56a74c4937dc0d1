// SPDX-License-Identifier: Apache-2.0
// The epochs of a datastore and the functions that are told about them.
#include <limestone/api/datastore.h>

#include <utility>

#include <glog/logging.h>

#include <limestone/logging.h>

#include "datastore_impl.h"
#include "errors.h"
#include "state_warnings.h"

namespace limestone::api {

namespace {

void raise(std::atomic_uint64_t& counter, std::uint64_t value) noexcept {
    auto seen = counter.load();
    while (seen < value && !counter.compare_exchange_weak(seen, value)) {
    }
}

}  // namespace

void datastore::raise_epoch_counters() noexcept {
    // The core counts; these copies serve last_epoch() and the inline accessors, whose places in the class are fixed.
    // The core reports every epoch that it completes, so raising them there and after a switch keeps them up to date.
    auto recorded = limestone_datastore_recorded_epoch(impl_->core_);
    raise(epoch_id_to_be_recorded_, recorded);
    raise(epoch_id_record_finished_, recorded);
    raise(epoch_id_informed_, limestone_datastore_notified_epoch(impl_->core_));
}

epoch_id_type datastore::last_epoch() const noexcept {
    return epoch_id_informed_.load();
}

void datastore::switch_epoch(epoch_id_type epoch_id) {
    internal::warn_before_ready(*impl_, "switch_epoch");
    on_switch_epoch_epoch_id_switched_store();
    auto status = limestone_datastore_switch_epoch(impl_->core_, epoch_id);
    if (status == LIMESTONE_ERR_WRONG_STATE) {
        // A late tick around ready() or shutdown() has nothing to complete.
        VLOG(log_debug) << "/:limestone:api:datastore:switch_epoch epoch " << epoch_id
                        << " is ignored: " << internal::core_error_text(status);
        return;
    }
    internal::check_guarded("switch_epoch", status, LIMESTONE_HERE);
    epoch_id_switched_.store(limestone_datastore_switched_epoch(impl_->core_));
    raise_epoch_counters();
}

void datastore::add_persistent_callback(std::function<void(epoch_id_type)> callback) noexcept {
    internal::warn_after_ready(*impl_, "add_persistent_callback");
    impl_->callbacks_.set_epoch_function(std::move(callback));
}

void datastore::add_durability_callback(std::function<void(epoch_id_type, durability)> callback) noexcept {
    internal::warn_after_ready(*impl_, "add_persistent_callback");
    impl_->callbacks_.set_durability_function(std::move(callback));
}

void datastore::remove_persistent_callback() noexcept {
    internal::warn_before_ready(*impl_, "remove_persistent_callback");
    impl_->callbacks_.clear();
}

void datastore::add_snapshot_callback(std::function<void(write_version_type)> callback) noexcept {
    internal::warn_after_ready(*impl_, "add_snapshot_callback");
    // The former function may end outside the lock.
    std::lock_guard<std::mutex> lock(impl_->snapshot_mutex_);
    impl_->snapshot_callback_.swap(callback);
}

void datastore::switch_safe_snapshot(write_version_type write_version, bool inclusive) const noexcept {
    internal::warn_before_ready(*impl_, "switch_safe_snapshot");
    auto status = limestone_datastore_switch_safe_snapshot(impl_->core_, write_version.get_major(),
                                                           write_version.get_minor(), inclusive);
    LOG_IF(ERROR, status != LIMESTONE_OK)
        << "/:limestone:api:datastore:switch_safe_snapshot " << internal::core_error_text(status);
}

void datastore::switch_available_boundary_version(write_version_type version) {
    std::lock_guard<std::mutex> lock(impl_->boundary_version_mutex_);
    auto const& current = available_boundary_version_;
    if (version < current) {
        LOG(ERROR) << "/:limestone:api:datastore:switch_available_boundary_version The new boundary version ("
                   << version.get_major() << ", " << version.get_minor()
                   << ") is smaller than the current boundary version (" << current.get_major() << ", "
                   << current.get_minor() << ")";
        return;
    }
    if (impl_->core_ != nullptr) {
        auto status = limestone_datastore_switch_available_boundary_version(impl_->core_, version.get_major(),
                                                                            version.get_minor());
        internal::check_guarded("switch_available_boundary_version", status, LIMESTONE_HERE);
    }
    available_boundary_version_ = version;
}

void datastore::persist_and_propagate_epoch_id(epoch_id_type epoch_id) {
    auto status = limestone_datastore_record_epoch(impl_->core_, epoch_id);
    internal::check_guarded("persist_and_propagate_epoch_id", status, LIMESTONE_HERE);
    raise_epoch_counters();
}

}  // namespace limestone::api
