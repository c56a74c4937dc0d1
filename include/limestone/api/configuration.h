// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * @file configuration.h
 * Settings with which a datastore is constructed (public API, section 3.5).
 */

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <boost/filesystem.hpp>

namespace limestone::internal {
struct layout_check;
}  // namespace limestone::internal

namespace limestone::api {

class datastore;

/**
 * Settings of a datastore; an ordinary copyable value. The datastore copies what it needs, later changes do not reach
 * it.
 *
 * One object must not be changed while another thread uses it.
 */
class configuration {
    static constexpr int default_recover_max_parallelism = 8;

public:
    /// An empty data location, no names, 8 recovery threads.
    configuration() noexcept;

    /**
     * Sets the directory of the data. Its last component is created when it is missing.
     * @param data_location kept as it is: neither made absolute nor normalised
     */
    void set_data_location(const std::filesystem::path& data_location) noexcept;

    /// Sets the name of the instance, which only appears in event records. The initial value is empty.
    void set_instance_id(std::string_view instance_id) noexcept;

    /// Sets the name of the database, which only appears in event records. The initial value is empty.
    void set_db_name(std::string_view db_name) noexcept;

    /**
     * Sets the number of threads that read the log in `datastore::ready()`.
     * @param recover_max_parallelism 0 or less stands for the default, 8
     */
    void set_recover_max_parallelism(int recover_max_parallelism) noexcept;

private:
    boost::filesystem::path data_location_{};
    std::string instance_id_{};
    std::string db_name_{};
    int recover_max_parallelism_{default_recover_max_parallelism};

    friend class datastore;
    friend struct internal::layout_check;
};

}  // namespace limestone::api
