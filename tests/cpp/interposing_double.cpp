// SPDX-License-Identifier: Apache-2.0
// Replaces three functions of the library by functions with C linkage that have their mangled names, and forwards to
// them, as the engine's test double does (public API, section 11.1). That needs exactly these signatures, out of line
// and exported, and versions that are passed in registers.
#include "interposing_double.h"

#include <dlfcn.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include <limestone/api/write_version_type.h>

interposed_calls interposed;

namespace {

using text = std::string_view;
using version = limestone::api::write_version_type;
using blob_ids = std::vector<std::uint64_t>;

template <class Function>
Function next(const char* name) {
    return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

#define NAME_OF(symbol) NAME_OF_EXPANDED(symbol)
#define NAME_OF_EXPANDED(symbol) #symbol
#define ADD_ENTRY \
    _ZN9limestone3api11log_channel9add_entryEmSt17basic_string_viewIcSt11char_traitsIcEES5_NS0_18write_version_typeE
#define ADD_ENTRY_WITH_BLOBS \
    _ZN9limestone3api11log_channel9add_entryEmSt17basic_string_viewIcSt11char_traitsIcEES5_NS0_18write_version_typeERKSt6vectorImSaImEE
#define SWITCH_BOUNDARY _ZN9limestone3api9datastore33switch_available_boundary_versionENS0_18write_version_typeE

extern "C" {

void ADD_ENTRY(void* self, std::uint64_t storage, text key, text value, version v) {
    ++interposed.add_entry;
    next<decltype(&ADD_ENTRY)>(NAME_OF(ADD_ENTRY))(self, storage, key, value, v);
}

void ADD_ENTRY_WITH_BLOBS(void* self, std::uint64_t storage, text key, text value, version v, blob_ids const& blobs) {
    ++interposed.add_entry_with_blobs;
    next<decltype(&ADD_ENTRY_WITH_BLOBS)>(NAME_OF(ADD_ENTRY_WITH_BLOBS))(self, storage, key, value, v, blobs);
}

void SWITCH_BOUNDARY(void* self, version v) {
    ++interposed.switch_available_boundary_version;
    next<decltype(&SWITCH_BOUNDARY)>(NAME_OF(SWITCH_BOUNDARY))(self, v);
}

}  // extern "C"
