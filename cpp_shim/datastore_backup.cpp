// SPDX-License-Identifier: Apache-2.0
// Backup, restore and compaction of a datastore.
#include <limestone/api/datastore.h>

#include <algorithm>

#include <glog/logging.h>

#include "datastore_impl.h"
#include "errors.h"
#include "state_warnings.h"

namespace limestone::api {

namespace {

namespace fs = boost::filesystem;

/// The files of the data location that exist now, and those of the BLOBs below it.
std::vector<fs::path> files_to_copy(fs::path const& location) {
    std::vector<fs::path> files;
    for (auto const& entry : fs::directory_iterator(location)) {
        // The temporary form of the epoch file can vanish at any moment and is never needed.
        if (!fs::is_directory(entry.path()) && entry.path().filename() != ".epoch.tmp") {
            files.push_back(entry.path());
        }
    }
    auto blobs = location / "blob";
    if (fs::is_directory(blobs)) {
        for (auto const& entry : fs::recursive_directory_iterator(blobs)) {
            if (fs::is_regular_file(entry.path()) && entry.path().extension() == ".blob") {
                files.push_back(entry.path());
            }
        }
    }
    std::sort(files.begin(), files.end());
    return files;
}

}  // namespace

backup& datastore::begin_backup() {
    return internal::guarded("begin_backup", [this]() -> backup& {
        // What is listed must not be deleted as unused before it is copied.
        wait_for_blob_file_garbace_collector_for_tests();
        std::lock_guard<std::mutex> lock(impl_->backup_mutex_);
        impl_->backup_.reset(new backup(files_to_copy(impl_->location_), *impl_));
        return *impl_->backup_;
    });
}

std::unique_ptr<backup_detail> datastore::begin_backup(backup_type /*btype*/) {
    internal::throw_not_available("begin_backup(backup_type)", "use the plain begin_backup()", LIMESTONE_HERE);
}

status datastore::restore(std::string_view from, bool /*keep_backup*/) const noexcept {
    LOG(ERROR)
        << "/:limestone:api:datastore:restore restore is not available in this version, nothing was restored from "
        << from;
    return status::err_permission_error;
}

status datastore::restore(std::string_view from, std::vector<file_set_entry>& /*entries*/) noexcept {
    LOG(ERROR)
        << "/:limestone:api:datastore:restore restore is not available in this version, nothing was restored from "
        << from;
    return status::err_permission_error;
}

void datastore::compact_with_online() {
    internal::warn_before_ready(*impl_, "compact_with_online");
    internal::throw_not_available("compact_with_online", "log files cannot be merged", LIMESTONE_HERE);
}

}  // namespace limestone::api
