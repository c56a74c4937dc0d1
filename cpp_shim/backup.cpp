// SPDX-License-Identifier: Apache-2.0
#include <limestone/api/backup.h>

#include <utility>

#include <limestone_core.h>

namespace limestone::api {

backup::backup(std::vector<boost::filesystem::path> files, limestone_backup* core) noexcept
    : files_(std::move(files)), core_(core) {}

backup::~backup() noexcept {
    notify_end_backup();
}

bool backup::is_ready() const noexcept {
    return true;
}

bool backup::wait_for_ready(std::size_t /*duration*/) const noexcept {
    return true;
}

std::vector<boost::filesystem::path>& backup::files() noexcept {
    return files_;
}

void backup::notify_end_backup() noexcept {
    if (!ended_.exchange(true)) {
        limestone_backup_end(&core_);
    }
}

}  // namespace limestone::api
