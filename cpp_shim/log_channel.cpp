// SPDX-License-Identifier: Apache-2.0
#include <limestone/api/log_channel.h>

#include <cstdio>
#include <utility>

#include <glog/logging.h>

#include <limestone/api/datastore.h>

#include "errors.h"
#include "log_channel_impl.h"

namespace limestone::api {

namespace {

std::string file_name(std::size_t id) {
    char name[32];
    std::snprintf(name, sizeof name, "pwal_%04zu", id);
    return name;
}

const std::uint8_t* bytes(std::string_view text) noexcept {
    return reinterpret_cast<const std::uint8_t*>(text.data());
}

}  // namespace

log_channel::log_channel(boost::filesystem::path location, std::size_t id, datastore& envelope) noexcept
    : impl_(std::make_unique<log_channel_impl>()),
      location_(std::move(location)),
      file_name_(file_name(id)),
      id_(id),
      envelope_(envelope) {}

void log_channel::begin_session() {
    std::uint64_t epoch = 0;
    envelope_.on_begin_session_current_epoch_id_store();
    auto status = limestone_channel_begin_session(impl_->core_, &epoch);
    internal::check_guarded("begin_session", status, LIMESTONE_HERE);
    current_epoch_id_.store(epoch);
}

void log_channel::end_session() {
    auto epoch = current_epoch_id_.load();
    auto status = limestone_channel_end_session(impl_->core_);
    internal::check_guarded("end_session", status, LIMESTONE_HERE);
    envelope_.on_end_session_finished_epoch_id_store();
    finished_epoch_id_.store(epoch);
    envelope_.on_end_session_current_epoch_id_store();
    current_epoch_id_.store(std::numeric_limits<std::uint64_t>::max());
}

void log_channel::abort_session(status status_code, const std::string& message) noexcept {
    auto epoch = current_epoch_id_.load();
    auto status = limestone_channel_abort_session(impl_->core_);
    if (status == LIMESTONE_ERR_WRONG_STATE) {
        LOG(ERROR) << "/:limestone:api:log_channel:abort_session " << internal::core_error_text(status);
        return;
    }
    internal::check_guarded("abort_session", status, LIMESTONE_HERE);
    current_epoch_id_.store(std::numeric_limits<std::uint64_t>::max());
    LOG(WARNING) << "/:limestone:api:log_channel:abort_session the session of epoch " << epoch << " on " << file_name_
                 << " was aborted (" << static_cast<std::int64_t>(status_code) << "): " << message;
}

void log_channel::add_entry(storage_id_type storage_id, std::string_view key, std::string_view value,
                            write_version_type write_version) {
    auto status = limestone_channel_add_entry(impl_->core_, storage_id, bytes(key), key.size(), bytes(value),
                                              value.size(), write_version.get_major(), write_version.get_minor());
    internal::check_guarded("add_entry", status, LIMESTONE_HERE);
}

void log_channel::add_entry(storage_id_type storage_id, std::string_view key, std::string_view value,
                            write_version_type write_version, const std::vector<blob_id_type>& large_objects) {
    if (!large_objects.empty()) {
        envelope_.note_persistent_blob_ids(large_objects);
    }
    auto status = limestone_channel_add_entry_with_blobs(
        impl_->core_, storage_id, bytes(key), key.size(), bytes(value), value.size(), write_version.get_major(),
        write_version.get_minor(), large_objects.data(), large_objects.size());
    internal::check_guarded("add_entry", status, LIMESTONE_HERE);
}

void log_channel::remove_entry(storage_id_type storage_id, std::string_view key, write_version_type write_version) {
    auto status = limestone_channel_remove_entry(impl_->core_, storage_id, bytes(key), key.size(),
                                                 write_version.get_major(), write_version.get_minor());
    internal::check_guarded("remove_entry", status, LIMESTONE_HERE);
}

void log_channel::add_storage(storage_id_type storage_id, write_version_type write_version) {
    auto status =
        limestone_channel_add_storage(impl_->core_, storage_id, write_version.get_major(), write_version.get_minor());
    internal::check_guarded("add_storage", status, LIMESTONE_HERE);
}

void log_channel::remove_storage(storage_id_type storage_id, write_version_type write_version) {
    auto status = limestone_channel_remove_storage(impl_->core_, storage_id, write_version.get_major(),
                                                   write_version.get_minor());
    internal::check_guarded("remove_storage", status, LIMESTONE_HERE);
}

void log_channel::truncate_storage(storage_id_type storage_id, write_version_type write_version) {
    auto status = limestone_channel_truncate_storage(impl_->core_, storage_id, write_version.get_major(),
                                                     write_version.get_minor());
    internal::check_guarded("truncate_storage", status, LIMESTONE_HERE);
}

boost::filesystem::path log_channel::file_path() const noexcept {
    return location_ / file_name_;
}

log_channel_impl* log_channel::get_impl() const noexcept {
    return impl_.get();
}

}  // namespace limestone::api
