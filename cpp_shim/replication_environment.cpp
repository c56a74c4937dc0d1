// SPDX-License-Identifier: Apache-2.0
#include "replication_environment.h"

#include <cstdlib>

#include <glog/logging.h>

namespace limestone::internal {

namespace {

constexpr const char* prefix = "/:limestone:config:datastore ";

const char* enabled(const char* variable) {
    return std::getenv(variable) != nullptr ? "enabled" : "disabled";
}

}  // namespace

void log_replication_environment() {
    LOG(INFO) << prefix << "REPLICATION_ASYNC_SESSION_CLOSE: " << enabled("REPLICATION_ASYNC_SESSION_CLOSE");
    LOG(INFO) << prefix << "REPLICATION_ASYNC_GROUP_COMMIT: " << enabled("REPLICATION_ASYNC_GROUP_COMMIT");
    if (std::getenv("REPLICATION_RDMA_SLOTS") == nullptr) {
        LOG(INFO) << prefix << "REPLICATION_RDMA_SLOTS: not set; RDMA replication disabled";
    } else {
        LOG(WARNING) << prefix << "REPLICATION_RDMA_SLOTS: set, but this version has no RDMA replication";
    }
    LOG(INFO) << prefix
              << (std::getenv("TSURUGI_REPLICATION_ENDPOINT") != nullptr ? "Replica enabled; endpoint valid: 1"
                                                                         : "Replica disabled; endpoint valid: 0");
}

}  // namespace limestone::internal
