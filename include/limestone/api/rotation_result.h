// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file rotation_result.h
 * Which log files a rotation produced (public API, section 10.2).
 */

#include <future>
#include <iostream>
#include <memory>
#include <mutex>
#include <queue>
#include <set>
#include <string>
#include <vector>

#include <boost/filesystem.hpp>

#include <limestone/api/epoch_id_type.h>

namespace limestone::internal {
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

/// The files of one rotation. Not safe for use by several threads at a time.
class rotation_result {
public:
    /// The result of a rotation in `epoch`.
    explicit rotation_result(epoch_id_type epoch) : epoch_id_(epoch) {}

    /// The epoch that was current when the rotation took place.
    [[nodiscard]] epoch_id_type get_epoch_id() const;

    /// All rotated files that existed when the rotation was complete.
    [[nodiscard]] const std::set<boost::filesystem::path>& get_rotation_end_files() const;

    /// Replaces the set that `get_rotation_end_files()` returns.
    void set_rotation_end_files(const std::set<boost::filesystem::path>& files);

    /// Adds the name of a file that this rotation produced.
    void add_rotated_file(const std::string& filename);

private:
    std::set<std::string> rotated_files_{};
    std::set<boost::filesystem::path> rotation_end_files_{};
    epoch_id_type epoch_id_;

    friend struct internal::layout_check;
};

}  // namespace limestone::api
