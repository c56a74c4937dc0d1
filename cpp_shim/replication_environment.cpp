// SPDX-License-Identifier: Apache-2.0
#include "replication_environment.h"

#include <cstdlib>
#include <string>

#include <glog/logging.h>

#include "errors.h"

namespace limestone::internal {

namespace {

constexpr const char* prefix = "/:limestone:config:datastore ";

const char* enabled(const char* variable) {
    return std::getenv(variable) != nullptr ? "enabled" : "disabled";
}

}  // namespace

void check_replication_environment() {
    LOG(INFO) << prefix << "REPLICATION_ASYNC_SESSION_CLOSE: " << enabled("REPLICATION_ASYNC_SESSION_CLOSE");
    LOG(INFO) << prefix << "REPLICATION_ASYNC_GROUP_COMMIT: " << enabled("REPLICATION_ASYNC_GROUP_COMMIT");
    if (std::getenv("REPLICATION_RDMA_SLOTS") == nullptr) {
        LOG(INFO) << prefix << "REPLICATION_RDMA_SLOTS: not set; RDMA replication disabled";
    } else {
        LOG(WARNING) << prefix << "REPLICATION_RDMA_SLOTS: set, but this version has no RDMA replication";
    }
    const char* endpoint = std::getenv("TSURUGI_REPLICATION_ENDPOINT");
    if (endpoint == nullptr) {
        LOG(INFO) << prefix << "Replica disabled; endpoint valid: 0";
        return;
    }
    auto text =
        std::string("replication is not available in this version, but TSURUGI_REPLICATION_ENDPOINT is set to \"") +
        endpoint + "\": unset it to run without a replica";
    LOG(ERROR) << prefix << text;
    throw api::limestone_exception(api::exception_type::initialization_failure, with_place(text, LIMESTONE_HERE));
}

}  // namespace limestone::internal
