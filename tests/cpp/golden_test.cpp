// SPDX-License-Identifier: Apache-2.0
// Data directories that the original wrote, opened through the C++ interface.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <regex>
#include <sstream>

#include "test_support.h"

namespace limestone::testing {

using namespace limestone::api;

namespace {

std::filesystem::path const golden{LIMESTONE_GOLDEN_DIR};

std::string read(std::filesystem::path const& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

std::string from_hex(std::string const& hex) {
    std::string bytes;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
        bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    }
    return bytes;
}

/// The part of an expected.json between `begin` and `end`.
std::string part_of(std::string const& text, std::string const& begin, std::string const& end) {
    auto from = text.find(begin);
    if (from == std::string::npos) {
        return {};
    }
    return text.substr(from, text.find(end, from) - from);
}

std::vector<entry> expected_entries(std::string const& expected) {
    static std::regex const one_entry(R"re("storage_id": (\d+),\s*"key": "([0-9a-f]*)",\s*"value": "([0-9a-f]*)")re");
    // The list stands at the first level of the file, which is indented by one.
    auto list = part_of(expected, "\n \"entries\": [", "\n ]");
    std::vector<entry> entries;
    for (std::sregex_iterator match(list.begin(), list.end(), one_entry), end; match != end; ++match) {
        entries.emplace_back(std::stoull((*match)[1]), from_hex((*match)[2]), from_hex((*match)[3]));
    }
    return entries;
}

epoch_id_type expected_last_epoch(std::string const& expected) {
    std::smatch match;
    EXPECT_TRUE(std::regex_search(expected, match, std::regex(R"re("last_epoch": (\d+))re")));
    return std::stoull(match[1]);
}

class golden_directory : public ::testing::TestWithParam<const char*> {};

}  // namespace

TEST_P(golden_directory, opens_with_the_entries_that_the_original_finds) {
    scratch_directory scratch;
    auto source = golden / GetParam();
    std::filesystem::copy(source / "data", scratch.location(), std::filesystem::copy_options::recursive);
    auto expected = read(source / "expected.json");
    ASSERT_FALSE(expected.empty());
    for (int start = 1; start <= 2; ++start) {
        datastore object(settings(scratch.location()));
        object.create_channel();
        object.ready();
        EXPECT_EQ(entries_of(object), expected_entries(expected)) << "start " << start;
        EXPECT_EQ(object.last_epoch(), expected_last_epoch(expected)) << "start " << start;
    }
}

INSTANTIATE_TEST_SUITE_P(written_by_the_original, golden_directory,
                         ::testing::Values("empty", "empty_not_ready", "single_session", "all_entry_types",
                                           "many_sessions_channels", "sessions_same_epoch", "remove_entry",
                                           "truncate_storage", "remove_storage_readd", "versions_minor_and_long_tx",
                                           "storage_and_key_order", "rotated", "manifest_v1", "manifest_v5",
                                           "undurable_tail", "online_compacted", "blobs"),
                         [](auto const& info) { return std::string(info.param); });

}  // namespace limestone::testing
