// SPDX-License-Identifier: Apache-2.0
#include "core_open.h"

#include <string>

#include <glog/logging.h>

#include "errors.h"

namespace limestone::internal {

namespace {

using api::exception_type;
using api::limestone_exception;

constexpr const char* manifest_name = "limestone-manifest.json";

[[noreturn]] void throw_unsupported_version(boost::filesystem::path const& location) {
    auto text = core_error_text(LIMESTONE_ERR_UNSUPPORTED_VERSION);
    if (!boost::filesystem::exists(location / manifest_name)) {
        throw limestone_exception(exception_type::fatal_error, with_place(text, LIMESTONE_HERE));
    }
    LOG(ERROR) << text;
    throw limestone_exception(exception_type::fatal_error, with_place("logdir version mismatch", LIMESTONE_HERE));
}

[[noreturn]] void fail_open(boost::filesystem::path const& location, std::int32_t status) {
    switch (status) {
        case LIMESTONE_ERR_LOCKED:
            LOG(FATAL) << "/:limestone:config:datastore " << core_error_text(status);
            std::abort();  // not reached: LOG(FATAL) does not return
        case LIMESTONE_ERR_UNSUPPORTED_VERSION:
            throw_unsupported_version(location);
        default:
            LOG(ERROR) << "/:limestone:api:datastore:datastore " << core_error_text(status);
            throw_core_error(status, LIMESTONE_HERE);
    }
}

/// Frees the settings when it goes out of scope.
struct settings_guard {
    limestone_settings* settings{nullptr};

    settings_guard() = default;
    settings_guard(settings_guard const&) = delete;
    settings_guard& operator=(settings_guard const&) = delete;
    ~settings_guard() { limestone_settings_destroy(&settings); }
};

void check(std::int32_t status, source_place place) {
    if (status != LIMESTONE_OK) {
        throw_core_error(status, place);
    }
}

}  // namespace

limestone_datastore* open_core(core_settings const& wanted) {
    settings_guard guard;
    check(limestone_settings_create(&guard.settings), LIMESTONE_HERE);
    auto const& path = wanted.location.native();
    check(limestone_settings_set_location(guard.settings, path.data(), path.size()), LIMESTONE_HERE);
    check(limestone_settings_set_recovery_threads(guard.settings, wanted.recovery_threads), LIMESTONE_HERE);
    auto const& id = wanted.instance_id;
    check(limestone_settings_set_instance_id(guard.settings, id.data(), id.size()), LIMESTONE_HERE);
    auto const& name = wanted.db_name;
    check(limestone_settings_set_db_name(guard.settings, name.data(), name.size()), LIMESTONE_HERE);
    auto status = limestone_settings_set_replication_from_environment(guard.settings);
    if (status != LIMESTONE_OK) {
        // Without the replica that somebody wanted, acknowledgements would promise too much.
        LOG(ERROR) << "/:limestone:config:datastore " << core_error_text(status);
        throw limestone_exception(exception_type::initialization_failure,
                                  with_place(core_error_text(status), LIMESTONE_HERE));
    }
    limestone_datastore* core = nullptr;
    status = limestone_datastore_open(guard.settings, &core);
    if (status != LIMESTONE_OK) {
        fail_open(wanted.location, status);
    }
    return core;
}

void fail_corrupted(boost::filesystem::path const& location) {
    LOG(ERROR) << "/:limestone:api:datastore:ready this pwal file is broken: "
               << core_error_text(LIMESTONE_ERR_CORRUPTED);
    LOG(ERROR) << "/:limestone recover process failed. (cause: corruption detected in transaction log data directory), "
                  "see https://github.com/project-tsurugi/tsurugidb/blob/master/docs/troubleshooting-guide.md";
    LOG(ERROR) << "/:limestone dblogdir (transaction log directory): " << location;
    try {
        throw limestone_exception(exception_type::fatal_error, with_place("dblogdir is corrupted", LIMESTONE_HERE));
    } catch (...) {
        handle_exception_and_abort("ready");
    }
}

}  // namespace limestone::internal
