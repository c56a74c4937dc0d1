// SPDX-License-Identifier: Apache-2.0
#include "core_blob_pool.h"

#include <stdexcept>
#include <string>
#include <utility>

#include <glog/logging.h>

#include <limestone/api/limestone_exception.h>

namespace limestone::internal {

namespace {

using api::blob_id_type;

/// A BLOB exception whose text is complete: the constructor of its base would add an error number once more, and also
/// where there is none.
class complete_blob_exception : public api::limestone_blob_exception {
public:
    complete_blob_exception(std::string text, int error_code) noexcept
        : limestone_blob_exception(api::exception_type::blob_error, text, error_code), text_(std::move(text)) {}

    [[nodiscard]] const char* what() const noexcept override { return text_.c_str(); }

private:
    std::string text_;
};

}  // namespace

void throw_blob_error(std::int32_t status, source_place place) {
    auto text = core_error_text(status);
    auto number = limestone_last_error_errno();
    LOG(ERROR) << "/:limestone:api:blob_pool " << text;
    throw complete_blob_exception(with_place(text, place), number);
}

core_blob_pool::core_blob_pool(limestone_blob_pool* core, sync_next_id sync, on_release released) noexcept
    : core_(core), sync_next_id_(std::move(sync)), on_release_(std::move(released)) {}

core_blob_pool::~core_blob_pool() {
    limestone_blob_pool_destroy(&core_);
}

void core_blob_pool::release() {
    if (released_.exchange(true)) {
        return;
    }
    limestone_blob_pool_release(core_);
    std::lock_guard<std::mutex> lock(ids_mutex_);
    on_release_(ids_);
    ids_.clear();
}

template <class Call>
blob_id_type core_blob_pool::register_by(Call&& call) {
    if (released_.load()) {
        throw std::logic_error("This pool is already released.");
    }
    sync_next_id_();
    blob_id_type id = 0;
    auto status = call(&id);
    sync_next_id_();
    if (status != LIMESTONE_OK) {
        throw_blob_error(status, LIMESTONE_HERE);
    }
    std::lock_guard<std::mutex> lock(ids_mutex_);
    ids_.push_back(id);
    return id;
}

blob_id_type core_blob_pool::register_file(boost::filesystem::path const& file, bool is_temporary_file) {
    auto const& path = file.native();
    return register_by([&](blob_id_type* id) {
        return limestone_blob_pool_register_file(core_, path.data(), path.size(), is_temporary_file, id);
    });
}

blob_id_type core_blob_pool::register_data(std::string_view data) {
    return register_by([&](blob_id_type* id) {
        return limestone_blob_pool_register_data(core_, reinterpret_cast<const std::uint8_t*>(data.data()), data.size(),
                                                 id);
    });
}

blob_id_type core_blob_pool::duplicate_data(blob_id_type reference) {
    return register_by([&](blob_id_type* id) { return limestone_blob_pool_duplicate(core_, reference, id); });
}

}  // namespace limestone::internal
