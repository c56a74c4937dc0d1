// SPDX-License-Identifier: Apache-2.0
// Uses the library with an allocator that checks the size given at deletion: the server may run with one that relies on
// it. What the library deletes through a virtual destructor and what a program deletes by itself must both fit.
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <new>

#include "test_support.h"

namespace {

constexpr std::size_t header_size = 16;

void* allocate(std::size_t size) {
    auto* block = static_cast<std::size_t*>(std::malloc(size + header_size));
    if (block == nullptr) {
        std::abort();
    }
    *block = size;
    return reinterpret_cast<char*>(block) + header_size;
}

void release(void* pointer) {
    if (pointer != nullptr) {
        std::free(static_cast<char*>(pointer) - header_size);
    }
}

void check_and_release(void* pointer, std::size_t size) {
    if (pointer == nullptr) {
        return;
    }
    auto allocated = *reinterpret_cast<std::size_t*>(static_cast<char*>(pointer) - header_size);
    if (allocated != size) {
        std::fprintf(stderr, "allocated %zu bytes, deleted as %zu bytes\n", allocated, size);
        std::abort();
    }
    release(pointer);
}

}  // namespace

void* operator new(std::size_t size) {
    return allocate(size);
}
void* operator new[](std::size_t size) {
    return allocate(size);
}
void operator delete(void* pointer) noexcept {
    release(pointer);
}
void operator delete[](void* pointer) noexcept {
    release(pointer);
}
void operator delete(void* pointer, std::size_t size) noexcept {
    check_and_release(pointer, size);
}
void operator delete[](void* pointer, std::size_t size) noexcept {
    check_and_release(pointer, size);
}

int main() {
    using namespace limestone::testing;
    scratch_directory scratch;
    {
        auto* object = new limestone::api::datastore(settings(scratch.location()));
        auto& channel = object->create_channel();
        object->add_persistent_callback([](std::size_t) {});
        object->ready();
        object->switch_epoch(1);
        channel.begin_session();
        channel.add_entry(1, "key", "value", {1, 0});
        channel.end_session();
        object->switch_epoch(2);
        object->begin_backup();
        object->shutdown().wait();
        delete object;
    }
    auto object = std::make_shared<limestone::api::datastore>(settings(scratch.location()));
    object->ready();
    auto snapshot = object->get_snapshot();
    auto found = drain(*snapshot->get_cursor()).size();
    auto cursors = snapshot->get_partitioned_cursors(3);
    cursors.clear();
    snapshot.reset();
    object.reset();
    if (found != 1) {
        std::fprintf(stderr, "expected 1 entry, found %zu\n", found);
        return 1;
    }
    return 0;
}
