// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cerrno>
#include <sstream>
#include <type_traits>

#include <limestone/api/limestone_exception.h>
#include <limestone/logging.h>

#include "test_support.h"

namespace limestone::testing {

using namespace limestone::api;

TEST(write_version, orders_by_major_then_by_unsigned_minor) {
    write_version_type const small{1, 9};
    write_version_type const large{2, 0};
    write_version_type const high_bit{1, 1ULL << 63U};
    EXPECT_TRUE(small < large);
    EXPECT_TRUE(small < high_bit);
    EXPECT_FALSE(large < small);
    EXPECT_TRUE(small <= small);
    EXPECT_FALSE(small < small);
    EXPECT_TRUE(small == write_version_type(1, 9));
    EXPECT_TRUE(write_version_type() == write_version_type(0, 0));
}

TEST(write_version, decodes_the_little_endian_image_and_ignores_further_bytes) {
    std::string const image("\x01\x02\0\0\0\0\0\0\x03\0\0\0\0\0\0\x80 more", 21);
    write_version_type const from_string{image};
    write_version_type const from_view{std::string_view{image}};
    EXPECT_EQ(from_string.get_major(), 0x0201U);
    EXPECT_EQ(from_string.get_minor(), 0x8000000000000003U);
    EXPECT_TRUE(from_string == from_view);
}

TEST(write_version, a_short_image_reads_as_if_zeros_followed) {
    EXPECT_TRUE(write_version_type{std::string_view{"\x05"}} == write_version_type(5, 0));
    EXPECT_TRUE(write_version_type{std::string_view{}} == write_version_type(0, 0));
}

TEST(status_text, is_the_spelling_of_the_enumerator) {
    static_assert(to_string_view(status::ok) == "ok");
    std::ostringstream out;
    out << status::err_not_found << ' ' << status::err_permission_error << ' ' << status::err_broken_data;
    EXPECT_EQ(out.str(), "err_not_found err_permission_error err_broken_data");
}

TEST(exceptions, carry_kind_number_and_formatted_text) {
    limestone_io_exception const io{exception_type::fatal_error, "open x", ENOENT};
    EXPECT_STREQ(io.what(), "I/O Error (No such file or directory): open x (errno = 2)");
    EXPECT_EQ(io.error_code(), ENOENT);
    EXPECT_EQ(io.type(), exception_type::fatal_error);
    boost::system::error_code const code{EACCES, boost::system::system_category()};
    limestone_blob_exception const blob{exception_type::blob_error, "read y", code};
    EXPECT_STREQ(blob.what(), "Blob Error (Permission denied): read y (errno = 13)");
    EXPECT_EQ(blob.error_code(), EACCES);
    EXPECT_EQ(limestone_exception(exception_type::initialization_failure, "z").error_code(), 0);
    static_assert(std::is_base_of_v<std::runtime_error, limestone_blob_exception>);
}

TEST(configuration_values, are_copied_and_assigned_like_any_value) {
    configuration first{};
    first.set_data_location("/tmp/a");
    first.set_data_location(std::string{"/tmp/b"});
    first.set_instance_id("instance");
    first.set_db_name("name");
    first.set_recover_max_parallelism(3);
    configuration second = first;
    second = configuration();
    first = second;
}

TEST(blob_file_value, tells_path_and_availability) {
    blob_file const none{{}, false};
    EXPECT_FALSE(static_cast<bool>(none));
    blob_file const some{std::string{"/a/b"}, true};
    EXPECT_TRUE(static_cast<bool>(some));
    EXPECT_EQ(some.path().string(), "/a/b");
}

TEST(file_sets, hold_what_they_were_made_with) {
    std::vector<file_set_entry> files;
    files.emplace_back("from", "to", true);
    EXPECT_EQ(files.front().source_path().string(), "from");
    EXPECT_EQ(files.front().destination_path().string(), "to");
    EXPECT_TRUE(files.front().is_detached());
    backup_detail::entry const entry{"from", "to", true, false};
    EXPECT_TRUE(entry.is_mutable());
    EXPECT_FALSE(entry.is_detached());
}

TEST(rotation_results, hold_what_they_were_given) {
    rotation_result result{7};
    result.add_rotated_file("pwal_0000.1.0");
    result.set_rotation_end_files({"a", "b"});
    EXPECT_EQ(result.get_epoch_id(), 7U);
    EXPECT_EQ(result.get_rotation_end_files().size(), 2U);
}

TEST(tags, live_in_memory_and_keep_their_first_registration) {
    datastore object;
    auto& tags = object.epoch_tag_repository();
    std::string name = "before upgrade";
    std::string comment = "first";
    std::string other = "second";
    tags.register_tag(name, comment);
    tags.register_tag(name, other);
    ASSERT_EQ(tags.list().size(), 1U);
    auto found = tags.find(name);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->name(), name);
    EXPECT_EQ(found->comments(), "first");
    EXPECT_EQ(found->epoch_id(), 0U);
    EXPECT_LE(found->timestamp(), std::chrono::system_clock::now());
    tags.unregister_tag("unknown");
    tags.unregister_tag(name);
    EXPECT_FALSE(tags.find(name).has_value());
    EXPECT_TRUE(tags.list().empty());
}

TEST(logging, verbosity_numbers_are_fixed) {
    static_assert(log_error == 10 && log_warning == 20 && log_info == 30 && log_debug == 40 && log_trace == 50 &&
                  log_trace_fine == 70);
}

}  // namespace limestone::testing
