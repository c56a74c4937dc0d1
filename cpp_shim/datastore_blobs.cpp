// SPDX-License-Identifier: Apache-2.0
// The part of a datastore that deals with BLOBs.
#include <limestone/api/datastore.h>

#include <cerrno>
#include <cstdio>
#include <string>

#include <glog/logging.h>

#include <limestone/api/limestone_exception.h>

#include "datastore_impl.h"
#include "errors.h"
#include "state_warnings.h"

namespace limestone::api {

std::unique_ptr<blob_pool> datastore::acquire_blob_pool() {
    throw limestone_blob_exception(exception_type::blob_error,
                                   "acquire_blob_pool is not available in this version: it cannot store BLOBs",
                                   ENOTSUP);
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
    char name[64];
    std::snprintf(name, sizeof name, "blob/dir_%02u/%016llx.blob", static_cast<unsigned>(reference % 100),
                  static_cast<unsigned long long>(reference));
    auto path = impl_->location_ / name;
    boost::system::error_code error;
    bool exists = boost::filesystem::exists(path, error);
    LOG_IF(ERROR, error && error != boost::system::errc::no_such_file_or_directory)
        << "/:limestone:api:datastore:get_blob_file " << limestone_blob_exception::format_message(path.string(), error);
    return blob_file(path, exists && reference < next_blob_id_.load());
}

void datastore::add_persistent_blob_ids(const std::vector<blob_id_type>& blob_ids) {
    std::lock_guard<std::mutex> lock(persistent_blob_ids_mutex_);
    persistent_blob_ids_.insert(blob_ids.begin(), blob_ids.end());
}

std::vector<blob_id_type> datastore::check_and_remove_persistent_blob_ids(const std::vector<blob_id_type>& blob_ids) {
    std::lock_guard<std::mutex> lock(persistent_blob_ids_mutex_);
    std::vector<blob_id_type> without_mark;
    for (auto id : blob_ids) {
        if (persistent_blob_ids_.erase(id) == 0) {
            without_mark.push_back(id);
        }
    }
    return without_mark;
}

void datastore::wait_for_blob_file_garbace_collector_for_tests() const noexcept {}

}  // namespace limestone::api
