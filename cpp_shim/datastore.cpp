// SPDX-License-Identifier: Apache-2.0
// The life cycle of a datastore: construction, recovery, snapshots, channels, shutdown.
#include <limestone/api/datastore.h>

#include <sys/random.h>

#include <cstdlib>
#include <utility>

#include <glog/logging.h>

#include "core_log.h"
#include "core_open.h"
#include "datastore_impl.h"
#include "errors.h"
#include "log_channel_impl.h"
#include "replication_environment.h"
#include "snapshot_impl.h"
#include "state_warnings.h"
#include "tag_store.h"

namespace limestone::api {

namespace {

std::array<std::uint8_t, 16> random_key() noexcept {
    std::array<std::uint8_t, 16> key{};
    if (getrandom(key.data(), key.size(), 0) != static_cast<ssize_t>(key.size())) {
        std::abort();
    }
    return key;
}

std::set<boost::filesystem::path> plain_files(boost::filesystem::path const& location) {
    std::set<boost::filesystem::path> files;
    for (auto const& entry : boost::filesystem::directory_iterator(location)) {
        if (!boost::filesystem::is_directory(entry.path())) {
            files.insert(entry.path());
        }
    }
    return files;
}

}  // namespace

datastore::datastore() noexcept : impl_(std::make_unique<datastore_impl>(boost::filesystem::path{})) {
    impl_->reference_key_ = random_key();
    impl_->tags_.reset(new tag_repository(std::make_shared<internal::tag_store>(nullptr)));
}

datastore::datastore(configuration const& conf) : impl_(std::make_unique<datastore_impl>(conf.data_location_)) {
    impl_->reference_key_ = random_key();
    internal::bridge_core_log();
    internal::guarded("datastore", [this, &conf] {
        auto const& location = impl_->location_;
        LOG(INFO) << "/:limestone:config:datastore setting log location = " << location.string();
        impl_->core_ = internal::open_core({location, conf.recover_max_parallelism_, conf.instance_id_, conf.db_name_});
        internal::log_replication_environment();
        auto status = impl_->callbacks_.attach(impl_->core_, [this] { raise_epoch_counters(); });
        if (status != LIMESTONE_OK) {
            internal::throw_core_error(status, LIMESTONE_HERE);
        }
        impl_->attach_snapshot_callback();
        impl_->tags_.reset(new tag_repository(std::make_shared<internal::tag_store>(impl_->core_)));
        files_ = plain_files(location);
        LOG(INFO) << "/:limestone:config:datastore setting the number of recover process thread = "
                  << conf.recover_max_parallelism_;
    });
}

datastore::~datastore() noexcept {
    shutdown();
}

void datastore::recover() const noexcept {
    internal::warn_after_ready(*impl_, "recover");
}

void datastore::recover(const epoch_tag& /*tag*/) const noexcept {
    internal::warn_after_ready(*impl_, "recover");
}

void datastore::ready() {
    auto status = limestone_datastore_ready(impl_->core_);
    if (status == LIMESTONE_ERR_CORRUPTED) {
        internal::fail_corrupted(impl_->location_);
    }
    internal::check_guarded("ready", status, LIMESTONE_HERE);
    impl_->state_.store(datastore_state::ready);
    epoch_id_switched_.store(limestone_datastore_switched_epoch(impl_->core_));
    // The counters of a run before a shutdown say nothing about this one.
    epoch_id_informed_.store(0);
    epoch_id_to_be_recorded_.store(0);
    epoch_id_record_finished_.store(0);
    next_blob_id_.store(limestone_datastore_next_blob_id(impl_->core_));
    raise_epoch_counters();
}

std::unique_ptr<snapshot> datastore::get_snapshot() const {
    internal::warn_before_ready(*impl_, "get_snapshot");
    limestone_snapshot* core = nullptr;
    if (impl_->state_.load() != datastore_state::not_ready) {
        auto status = limestone_snapshot_open(impl_->core_, &core);
        if (status != LIMESTONE_OK) {
            internal::throw_core_error(status, LIMESTONE_HERE);
        }
    }
    return std::unique_ptr<snapshot>(new snapshot(std::make_unique<internal::snapshot_impl>(core)));
}

std::shared_ptr<snapshot> datastore::shared_snapshot() const {
    return get_snapshot();
}

log_channel& datastore::create_channel() {
    internal::warn_after_ready(*impl_, "create_channel");
    std::lock_guard<std::mutex> lock(impl_->channels_mutex_);
    limestone_channel* core = nullptr;
    auto status = limestone_datastore_create_channel(impl_->core_, &core);
    internal::check_guarded("create_channel", status, LIMESTONE_HERE);
    std::unique_ptr<log_channel> channel(new log_channel(impl_->location_, log_channels_.size(), *this));
    channel->impl_->core_ = core;
    return *log_channels_.emplace_back(std::move(channel));
}

std::future<void> datastore::shutdown() noexcept {
    auto before = impl_->state_.exchange(datastore_state::shutdown);
    if (before != datastore_state::shutdown && impl_->core_ != nullptr) {
        auto status = limestone_datastore_shutdown(impl_->core_);
        LOG_IF(ERROR, status != LIMESTONE_OK) << "/:limestone:datastore:shutdown " << internal::core_error_text(status);
    }
    std::promise<void> done;
    done.set_value();
    return done.get_future();
}

tag_repository& datastore::epoch_tag_repository() noexcept {
    return *impl_->tags_;
}

}  // namespace limestone::api
