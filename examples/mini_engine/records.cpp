// SPDX-License-Identifier: Apache-2.0
#include "records.h"

#include <charconv>

namespace mini_engine {

namespace {

// Takes the number in front of `text` and the separator behind it off.
std::optional<std::uint64_t> take_number(std::string_view& text, char separator) {
    auto const end = text.find(separator);
    if (end == std::string_view::npos) {
        return std::nullopt;
    }
    auto number = parse_number(text.substr(0, end));
    text.remove_prefix(end + 1);
    return number;
}

}  // namespace

std::string record_key(std::uint64_t worker, std::uint64_t sequence) {
    return std::to_string(worker) + '-' + std::to_string(sequence);
}

std::string record_value(record_id const& id, std::size_t size) {
    std::string value = record_key(id.worker, id.sequence) + ':' + std::to_string(id.session_first) + ':' +
                        std::to_string(id.session_size) + ':';
    auto state = id.worker * 0x9e3779b97f4a7c15ULL + id.sequence;
    while (value.size() < size) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        value += static_cast<char>('a' + (state >> 59U) % 26U);
    }
    return value;
}

std::optional<record_id> parse_record(std::string_view key, std::string_view value) {
    auto rest = key;
    auto const worker = take_number(rest, '-');
    auto const sequence = parse_number(rest);
    if (!worker || !sequence || value.substr(0, key.size()) != key) {
        return std::nullopt;
    }
    rest = value;
    rest.remove_prefix(key.size());
    if (rest.empty() || rest.front() != ':') {
        return std::nullopt;
    }
    rest.remove_prefix(1);
    auto const first = take_number(rest, ':');
    auto const size = take_number(rest, ':');
    if (!first || !size || *sequence < *first || *sequence - *first >= *size) {
        return std::nullopt;
    }
    record_id const id{*worker, *sequence, *first, *size};
    if (record_value(id, value.size()) != value) {
        return std::nullopt;
    }
    return id;
}

std::optional<std::uint64_t> parse_number(std::string_view text) {
    std::uint64_t number = 0;
    auto const* end = text.data() + text.size();
    auto const result = std::from_chars(text.data(), end, number);
    if (text.empty() || result.ec != std::errc{} || result.ptr != end) {
        return std::nullopt;
    }
    return number;
}

}  // namespace mini_engine
