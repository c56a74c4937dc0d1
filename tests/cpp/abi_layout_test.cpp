// SPDX-License-Identifier: Apache-2.0
// What compiled programs know about the classes (public API, sections 12.2 to 12.4), seen from outside the library.
#include <gtest/gtest.h>

#include <cstring>

#include <limestone/api/limestone_exception.h>

#include "test_support.h"

namespace limestone::testing {

using namespace limestone::api;

namespace {

template <class Owner, class Member>
std::ptrdiff_t offset_in(Owner const& owner, Member const& member) {
    return reinterpret_cast<const char*>(&member) - reinterpret_cast<const char*>(&owner);
}

/// Number of the slot in the virtual table, from the form that the Itanium C++ ABI gives to member pointers.
template <class Function>
std::size_t slot_of(Function function) {
    std::uint64_t words[2];
    static_assert(sizeof function == sizeof words);
    std::memcpy(words, &function, sizeof words);
    EXPECT_EQ(words[0] % 8, 1U) << "not a virtual function";
    return (words[0] - 1) / 8;
}

}  // namespace

TEST(abi_layout, sizes_are_those_that_programs_were_compiled_with) {
    EXPECT_EQ(sizeof(datastore), 1056U);
    EXPECT_EQ(sizeof(log_channel), 120U);
    EXPECT_EQ(sizeof(configuration), 104U);
    EXPECT_EQ(sizeof(snapshot), 8U);
    EXPECT_EQ(sizeof(cursor), 8U);
    EXPECT_EQ(sizeof(backup), 40U);
    EXPECT_EQ(sizeof(backup_detail), 64U);
    EXPECT_EQ(sizeof(backup_detail::entry), 72U);
    EXPECT_EQ(sizeof(file_set_entry), 72U);
    EXPECT_EQ(sizeof(blob_pool), 8U);
    EXPECT_EQ(sizeof(blob_file), 40U);
    EXPECT_EQ(sizeof(tag_repository), 80U);
    EXPECT_EQ(sizeof(epoch_tag), 80U);
    EXPECT_EQ(sizeof(restore_progress), 56U);
    EXPECT_EQ(sizeof(rotation_result), 104U);
    EXPECT_EQ(sizeof(write_version_type), 16U);
    EXPECT_EQ(sizeof(limestone_exception), 24U);
}

TEST(abi_layout, inline_accessors_of_datastore_read_the_fixed_offsets) {
    open_datastore object;
    EXPECT_EQ(offset_in(object, object.log_channels_for_tests()), 40);
    EXPECT_EQ(offset_in(object, object.files_for_tests()), 472);
    auto words = reinterpret_cast<std::uint64_t*>(&object);
    words[96 / 8] = 11;
    words[104 / 8] = 12;
    words[112 / 8] = 13;
    words[120 / 8] = 14;
    words[992 / 8] = 15;
    words[1000 / 8] = 16;
    EXPECT_EQ(object.epoch_id_switched_for_tests(), 11U);
    EXPECT_EQ(object.epoch_id_informed_for_tests(), 12U);
    EXPECT_EQ(object.epoch_id_to_be_recorded_for_tests(), 13U);
    EXPECT_EQ(object.epoch_id_record_finished_for_tests(), 14U);
    EXPECT_EQ(object.get_available_boundary_version_for_tests().get_major(), 15U);
    EXPECT_EQ(object.get_available_boundary_version_for_tests().get_minor(), 16U);
    object.set_next_blob_id_for_tests(17);
    EXPECT_EQ(words[888 / 8], 17U);
    EXPECT_EQ(object.next_blob_id_for_tests(), 17U);
    EXPECT_EQ(reinterpret_cast<std::uint64_t>(object.get_impl()), words[1048 / 8]);
}

TEST(abi_layout, virtual_functions_of_datastore_keep_their_slots) {
    using d = open_datastore;
    EXPECT_EQ(slot_of(&d::persist_and_propagate_epoch_id), 2U);
    EXPECT_EQ(slot_of(&d::on_rotate_log_files), 3U);
    EXPECT_EQ(slot_of(&d::on_begin_session_current_epoch_id_store), 4U);
    EXPECT_EQ(slot_of(&d::on_end_session_finished_epoch_id_store), 5U);
    EXPECT_EQ(slot_of(&d::on_end_session_current_epoch_id_store), 6U);
    EXPECT_EQ(slot_of(&d::on_switch_epoch_epoch_id_switched_store), 7U);
    EXPECT_EQ(slot_of(&d::on_update_min_epoch_id_epoch_id_switched_load), 8U);
    EXPECT_EQ(slot_of(&d::on_update_min_epoch_id_current_epoch_id_load), 9U);
    EXPECT_EQ(slot_of(&d::on_update_min_epoch_id_finished_epoch_id_load), 10U);
    EXPECT_EQ(slot_of(&d::on_update_min_epoch_id_epoch_id_to_be_recorded_load), 11U);
    EXPECT_EQ(slot_of(&d::on_update_min_epoch_id_epoch_id_to_be_recorded_cas), 12U);
    EXPECT_EQ(slot_of(&d::on_update_min_epoch_id_epoch_id_record_finished_load), 13U);
    EXPECT_EQ(slot_of(&d::on_update_min_epoch_id_epoch_id_informed_load_1), 14U);
    EXPECT_EQ(slot_of(&d::on_update_min_epoch_id_epoch_id_informed_cas), 15U);
    EXPECT_EQ(slot_of(&d::on_update_min_epoch_id_epoch_id_informed_load_2), 16U);
}

TEST(abi_layout, virtual_functions_of_blob_pool_keep_their_slots) {
    EXPECT_EQ(slot_of(&blob_pool::release), 2U);
    EXPECT_EQ(slot_of(&blob_pool::register_file), 3U);
    EXPECT_EQ(slot_of(&blob_pool::register_data), 4U);
    EXPECT_EQ(slot_of(&blob_pool::duplicate_data), 5U);
}

TEST(abi_layout, channel_accessors_read_the_fixed_offsets) {
    scratch_directory scratch;
    datastore object(settings(scratch.location()));
    auto& channel = object.create_channel();
    auto words = reinterpret_cast<std::uint64_t*>(&channel);
    EXPECT_EQ(words[96 / 8], UINT64_MAX);
    EXPECT_EQ(words[104 / 8], 0U);
    object.ready();
    object.switch_epoch(7);
    channel.begin_session();
    EXPECT_EQ(words[96 / 8], 7U);
    channel.end_session();
    EXPECT_EQ(words[96 / 8], UINT64_MAX);
    EXPECT_EQ(words[104 / 8], 7U);
}

}  // namespace limestone::testing
