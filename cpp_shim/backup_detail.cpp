// SPDX-License-Identifier: Apache-2.0
#include <limestone/api/backup_detail.h>

#include <utility>

#include "datastore_impl.h"

namespace limestone::api {

backup_detail::backup_detail(std::vector<entry> entries, std::size_t log_finish, datastore_impl* impl) noexcept
    : log_finish_(log_finish), entries_(std::move(entries)), datastore_impl_(impl) {
    datastore_impl_->backup_begins();
}

epoch_id_type backup_detail::log_finish() const noexcept {
    return log_finish_;
}

void backup_detail::notify_end_backup() noexcept {
    if (!ended_.exchange(true)) {
        datastore_impl_->backup_ends();
    }
}

bool backup_detail::is_ready() const {
    return true;
}

}  // namespace limestone::api
