// SPDX-License-Identifier: Apache-2.0
#include <limestone/api/rotation_result.h>

namespace limestone::api {

epoch_id_type rotation_result::get_epoch_id() const {
    return epoch_id_;
}

const std::set<boost::filesystem::path>& rotation_result::get_rotation_end_files() const {
    return rotation_end_files_;
}

void rotation_result::set_rotation_end_files(const std::set<boost::filesystem::path>& files) {
    rotation_end_files_ = files;
}

void rotation_result::add_rotated_file(const std::string& filename) {
    rotated_files_.insert(filename);
}

}  // namespace limestone::api
