// SPDX-License-Identifier: Apache-2.0
#include "datastore_impl.h"

#include <glog/logging.h>

namespace limestone::api {

datastore_impl::~datastore_impl() {
    // The backup tells this object that it ended, and the core may still call the callbacks: both go first.
    backup_.reset();
    if (core_ != nullptr) {
        limestone_datastore_destroy(&core_);
    }
}

void datastore_impl::backup_begins() noexcept {
    auto count = ++backups_in_progress_;
    LOG(INFO) << "/:limestone:api:datastore_impl:backup_begins Beginning backup; active backup count: " << count;
}

void datastore_impl::backup_ends() noexcept {
    auto count = --backups_in_progress_;
    LOG(INFO) << "/:limestone:api:datastore_impl:backup_ends Ending backup; active backup count: " << count;
}

}  // namespace limestone::api
