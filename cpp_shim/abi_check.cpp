// SPDX-License-Identifier: Apache-2.0
// The sizes and offsets that are compiled into programs (public API, sections 12.2 and 12.4).
#include <cstddef>
#include <type_traits>

#include <limestone/api/datastore.h>
#include <limestone/api/limestone_exception.h>

#pragma GCC diagnostic ignored "-Winvalid-offsetof"  // the compilers we build with support it for these classes

namespace limestone::internal {

using namespace limestone::api;

/// A friend of the classes, so that it may look at their members.
struct layout_check {
    static_assert(
        sizeof(void*) == 8 && sizeof(std::string) == 32 && sizeof(boost::filesystem::path) == 32,
        "the binary interface is defined for 64-bit targets with the C++11 string and Boost's one-string path");

    static_assert(sizeof(datastore) == 1056 && alignof(datastore) == 8 && std::is_polymorphic_v<datastore>);
    static_assert(offsetof(datastore, write_epoch_callback_) == 8);
    static_assert(offsetof(datastore, log_channels_) == 40);
    static_assert(offsetof(datastore, epoch_id_switched_) == 96);
    static_assert(offsetof(datastore, epoch_id_informed_) == 104);
    static_assert(offsetof(datastore, epoch_id_to_be_recorded_) == 112);
    static_assert(offsetof(datastore, epoch_id_record_finished_) == 120);
    static_assert(offsetof(datastore, files_) == 472);
    static_assert(offsetof(datastore, next_blob_id_) == 888);
    static_assert(offsetof(datastore, persistent_blob_ids_) == 896);
    static_assert(offsetof(datastore, persistent_blob_ids_mutex_) == 944);
    static_assert(offsetof(datastore, available_boundary_version_) == 992);
    static_assert(offsetof(datastore, impl_) == 1048 && sizeof(datastore::impl_) == 8);

    static_assert(sizeof(log_channel) == 120 && alignof(log_channel) == 8 && !std::is_polymorphic_v<log_channel>);
    static_assert(offsetof(log_channel, current_epoch_id_) == 96);
    static_assert(offsetof(log_channel, finished_epoch_id_) == 104);

    static_assert(sizeof(configuration) == 104 && alignof(configuration) == 8);
    static_assert(offsetof(configuration, data_location_) == 0);
    static_assert(offsetof(configuration, instance_id_) == 32);
    static_assert(offsetof(configuration, db_name_) == 64);
    static_assert(offsetof(configuration, recover_max_parallelism_) == 96);

    static_assert(sizeof(snapshot) == 8 && offsetof(snapshot, pimpl_) == 0 && !std::is_polymorphic_v<snapshot>);
    static_assert(sizeof(cursor) == 8 && offsetof(cursor, pimpl_) == 0 && !std::is_polymorphic_v<cursor>);
    static_assert(sizeof(backup) == 40 && !std::is_polymorphic_v<backup>);

    static_assert(sizeof(backup_detail) == 64 && !std::is_polymorphic_v<backup_detail>);
    static_assert(offsetof(backup_detail, configuration_id_) == 0);
    static_assert(offsetof(backup_detail, log_finish_) == 16);
    static_assert(offsetof(backup_detail, entries_) == 24);
    static_assert(offsetof(backup_detail, core_) == 48);
    static_assert(offsetof(backup_detail, ended_) == 56);

    static_assert(sizeof(backup_detail::entry) == 72);
    static_assert(offsetof(backup_detail::entry, source_path_) == 0);
    static_assert(offsetof(backup_detail::entry, destination_path_) == 32);
    static_assert(offsetof(backup_detail::entry, is_mutable_) == 64);
    static_assert(offsetof(backup_detail::entry, is_detached_) == 65);

    static_assert(sizeof(file_set_entry) == 72);
    static_assert(offsetof(file_set_entry, source_path_) == 0);
    static_assert(offsetof(file_set_entry, destination_path_) == 32);
    static_assert(offsetof(file_set_entry, is_detached_) == 64);

    static_assert(sizeof(blob_pool) == 8 && std::is_polymorphic_v<blob_pool>);
    static_assert(sizeof(blob_file) == 40);
    static_assert(offsetof(blob_file, path_) == 0);
    static_assert(offsetof(blob_file, available_) == 32);

    static_assert(sizeof(tag_repository) == 80);
    static_assert(sizeof(epoch_tag) == 80);
    static_assert(offsetof(epoch_tag, name_) == 0);
    static_assert(offsetof(epoch_tag, comments_) == 32);
    static_assert(offsetof(epoch_tag, epoch_id_) == 64);
    static_assert(offsetof(epoch_tag, timestamp_) == 72 && sizeof(epoch_tag::timestamp_) == 8);

    static_assert(sizeof(restore_progress) == 56);
    static_assert(sizeof(rotation_result) == 104);

    static_assert(sizeof(write_version_type) == 16 && std::is_trivially_copyable_v<write_version_type>);
    static_assert(offsetof(write_version_type, epoch_number_) == 0);
    static_assert(offsetof(write_version_type, minor_write_version_) == 8);

    static_assert(sizeof(limestone_exception) == 24 && sizeof(limestone_io_exception) == 24 &&
                  sizeof(limestone_blob_exception) == 24);
    static_assert(std::is_base_of_v<std::runtime_error, limestone_exception>);

    static_assert(sizeof(exception_type) == 4 && sizeof(backup_type) == 4);
    static_assert(sizeof(status) == 8 && sizeof(restore_progress::status_kind) == 8);
    static_assert(std::is_same_v<epoch_id_type, std::size_t> && std::is_same_v<storage_id_type, std::size_t>);
    static_assert(std::is_same_v<blob_id_type, std::uint64_t> &&
                  std::is_same_v<blob_reference_tag_type, std::uint64_t> && std::is_same_v<epoch_t, std::int64_t>);
};

}  // namespace limestone::internal
