// SPDX-License-Identifier: Apache-2.0
// Backup, restore and compaction of a datastore.
#include <limestone/api/datastore.h>

#include <utility>

#include <glog/logging.h>

#include "datastore_impl.h"
#include "errors.h"
#include "state_warnings.h"

namespace limestone::api {

namespace {

namespace fs = boost::filesystem;

/// How long a detailed backup waits for what was written before it to become durable. The original waits for ever.
constexpr std::uint64_t backup_patience_ms = 10'000;

/// Ends a backup of the core unless it was handed on.
struct core_backup {
    limestone_backup* backup{nullptr};

    core_backup() = default;
    core_backup(core_backup const&) = delete;
    core_backup& operator=(core_backup const&) = delete;
    ~core_backup() { limestone_backup_end(&backup); }

    [[nodiscard]] std::size_t size() const { return limestone_backup_file_count(backup); }

    [[nodiscard]] limestone_backup_file file(std::size_t index) const {
        limestone_backup_file file{};
        auto status = limestone_backup_get_file(backup, index, &file);
        if (status != LIMESTONE_OK) {
            internal::throw_core_error(status, LIMESTONE_HERE);
        }
        return file;
    }

    limestone_backup* release() { return std::exchange(backup, nullptr); }
};

fs::path to_path(const char* data, std::size_t size) {
    return fs::path(std::string(data, size));
}

/// Logs a failed restore and translates its status (public API, section 8.3).
status restore_result(std::int32_t result) {
    if (result == LIMESTONE_OK) {
        return status::ok;
    }
    auto text = internal::core_error_text(result);
    LOG(ERROR) << (text.rfind("/:", 0) == 0 ? "" : "/:limestone:api:datastore:restore ") << text;
    switch (result) {
        case LIMESTONE_ERR_UNSUPPORTED_VERSION:
        case LIMESTONE_ERR_BROKEN_METADATA:
            return status::err_broken_data;
        case LIMESTONE_ERR_NOT_FOUND:
            return status::err_not_found;
        default:
            return status::err_permission_error;
    }
}

}  // namespace

backup& datastore::begin_backup() {
    return internal::guarded("begin_backup", [this]() -> backup& {
        std::lock_guard<std::mutex> lock(impl_->backup_mutex_);
        // The former one ends first, so that a compaction that waits for it sees a moment without backups.
        impl_->backup_.reset();
        core_backup core;
        auto status = limestone_datastore_begin_backup(impl_->core_, &core.backup);
        if (status != LIMESTONE_OK) {
            internal::throw_core_error(status, LIMESTONE_HERE);
        }
        std::vector<fs::path> files;
        files.reserve(core.size());
        for (std::size_t i = 0; i < core.size(); ++i) {
            auto file = core.file(i);
            files.push_back(to_path(file.source, file.source_len));
        }
        impl_->backup_.reset(new backup(std::move(files), core.release()));
        return *impl_->backup_;
    });
}

std::unique_ptr<backup_detail> datastore::begin_backup(backup_type /*btype*/) {
    core_backup core;
    on_rotate_log_files();
    auto status = limestone_datastore_begin_detailed_backup(impl_->core_, backup_patience_ms, &core.backup);
    if (status == LIMESTONE_ERR_WRONG_STATE && impl_->state_.load() == datastore_state::shutdown) {
        // A shutdown that ends the wait is no reason to end the process.
        internal::throw_core_error(status, LIMESTONE_HERE);
    }
    internal::check_guarded("begin_backup", status, LIMESTONE_HERE);
    return internal::guarded("begin_backup", [&core] {
        std::vector<backup_detail::entry> entries;
        entries.reserve(core.size());
        for (std::size_t i = 0; i < core.size(); ++i) {
            auto file = core.file(i);
            entries.emplace_back(to_path(file.source, file.source_len), to_path(file.destination, file.destination_len),
                                 file.is_mutable, file.is_detached);
        }
        auto log_finish = limestone_backup_log_finish(core.backup);
        return std::unique_ptr<backup_detail>(new backup_detail(std::move(entries), log_finish, core.release()));
    });
}

status datastore::restore(std::string_view from, bool keep_backup) const noexcept {
    return restore_result(limestone_datastore_restore(impl_->core_, from.data(), from.size(), keep_backup));
}

status datastore::restore(std::string_view from, std::vector<file_set_entry>& entries) noexcept {
    std::vector<std::pair<fs::path, fs::path>> paths;
    std::vector<limestone_file_to_restore> files;
    paths.reserve(entries.size());
    files.reserve(entries.size());
    for (auto const& entry : entries) {
        auto const& [source, destination] = paths.emplace_back(entry.source_path(), entry.destination_path());
        files.push_back({source.c_str(), source.size(), destination.c_str(), destination.size()});
    }
    return restore_result(
        limestone_datastore_restore_files(impl_->core_, from.data(), from.size(), files.data(), files.size()));
}

restore_progress datastore::restore_status() const noexcept {
    limestone_restore_progress progress{};
    auto status = limestone_datastore_restore_progress(impl_->core_, &progress);
    LOG_IF(ERROR, status != LIMESTONE_OK && impl_->core_ != nullptr)
        << "/:limestone:api:datastore:restore_status " << internal::core_error_text(status);
    return {static_cast<restore_progress::status_kind>(progress.phase), progress.files_done, progress.files_total,
            progress.bytes_done};
}

void datastore::rotate_epoch_file() {
    auto status = limestone_datastore_rotate_epoch_file(impl_->core_);
    if (status != LIMESTONE_OK) {
        internal::throw_core_error(status, LIMESTONE_HERE);
    }
}

void datastore::compact_with_online() {
    internal::warn_before_ready(*impl_, "compact_with_online");
    on_rotate_log_files();
    auto status = limestone_datastore_compact(impl_->core_);
    if (status != LIMESTONE_OK) {
        internal::throw_core_error(status, LIMESTONE_HERE);
    }
}

}  // namespace limestone::api
