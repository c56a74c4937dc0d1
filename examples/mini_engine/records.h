// SPDX-License-Identifier: Apache-2.0
// What the mini engine stores, so that writing and verifying share one definition.
//
// Storage 1 holds the records. Worker w numbers its records 0, 1, 2, ...; record s has the key "<w>-<s>". Each value
// names the session that wrote it (its first sequence number and its size) and is otherwise a function of the key, so
// that a verifier knows every right value and can tell whether all records of a session are there.
// Storage 2 holds, per worker, the last sequence number written: a key that every session overwrites.
// Storage 3 holds, per worker that removes its old records, the oldest sequence number that is still there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <limestone/api/storage_id_type.h>

namespace mini_engine {

constexpr limestone::api::storage_id_type records_storage = 1;
constexpr limestone::api::storage_id_type newest_storage = 2;
constexpr limestone::api::storage_id_type oldest_storage = 3;

/// A record and the session it was written in.
struct record_id {
    std::uint64_t worker;
    std::uint64_t sequence;
    std::uint64_t session_first;  ///< sequence number of the first record of the session
    std::uint64_t session_size;   ///< number of records of the session
};

/// The key of a record: `<worker>-<sequence>`.
std::string record_key(std::uint64_t worker, std::uint64_t sequence);

/// The value of a record, padded to `size` bytes when it is shorter.
std::string record_value(record_id const& id, std::size_t size);

/// Reads a record back; nothing when key or value is not what `record_value` makes for that key and length.
std::optional<record_id> parse_record(std::string_view key, std::string_view value);

/// Reads a whole string as a decimal number; nothing when it is anything else.
std::optional<std::uint64_t> parse_number(std::string_view text);

}  // namespace mini_engine
