// SPDX-License-Identifier: Apache-2.0
#include <limestone/api/backup_detail.h>

#include <utility>

#include <limestone_core.h>

namespace limestone::api {

backup_detail::backup_detail(std::vector<entry> entries, std::size_t log_finish, limestone_backup* core) noexcept
    : log_finish_(log_finish), entries_(std::move(entries)), core_(core) {}

epoch_id_type backup_detail::log_finish() const noexcept {
    return log_finish_;
}

void backup_detail::notify_end_backup() noexcept {
    if (!ended_.exchange(true)) {
        limestone_backup_end(&core_);
    }
}

bool backup_detail::is_ready() const {
    return true;
}

}  // namespace limestone::api
