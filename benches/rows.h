// SPDX-License-Identifier: Apache-2.0
// What each row of the table measures. A row that is a ratio is the median of ratios of runs made in pairs, one
// directly after the other, in alternating order: the machine may change its speed between pairs but hardly within one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "measure.h"
#include "table.h"

namespace bench {

/// How much is measured.
struct scale {
    std::uint64_t entries = 2'000'000;  // of the recovery directory; a quarter and four times as many for the others
    std::size_t recovery_pairs = 7;
    std::size_t size_rounds = 5;
    std::size_t add_entry_runs = 5;
    std::uint64_t add_entry_sessions = 5000;
    std::size_t session_pairs = 9;
    double session_seconds = 1.0;
    std::uint64_t latency_rounds = 1000;
    std::size_t inspect_pairs = 15;
    std::size_t blob_pairs = 5;
    std::uint64_t blobs = 10'000;
    std::uint64_t large_blob_bytes = 1U << 30U;
    std::size_t compaction_pairs = 5;
    std::size_t replication_pairs = 5;
    std::uint64_t replication_sessions = 500;
    std::uint64_t catch_up_bytes = 1'000'000'000;  // a twentieth of it is what one that rejoins lacks
    std::string name = "full";
};

scale quick_scale();

/// Only shows that everything runs.
scale smoke_scale();

/// Runs of two ways of doing something, made in pairs.
class comparison {
public:
    using pair = std::pair<fields, fields>;

    void add(pair runs) { pairs_.push_back(std::move(runs)); }

    /// A field of the first of each pair over that of the second.
    [[nodiscard]] std::vector<double> ratios(std::string const& field) const;
    /// The median of these.
    [[nodiscard]] double ratio(std::string const& field) const { return median(ratios(field)); }
    /// The median of a field of the first ones.
    [[nodiscard]] double first(std::string const& field) const { return median(values(&pair::first, field)); }
    [[nodiscard]] double second(std::string const& field) const { return median(values(&pair::second, field)); }

private:
    [[nodiscard]] std::vector<double> values(fields pair::*which, std::string const& field) const;

    std::vector<pair> pairs_;
};

/// Measures rows and appends them; one method per group. The directory is made anew and removed in the end.
class runner {
public:
    runner(std::string work_directory, scale size, bool random_keys);
    ~runner();
    runner(runner const&) = delete;
    runner& operator=(runner const&) = delete;
    runner(runner&&) = delete;
    runner& operator=(runner&&) = delete;

    void recovery(std::vector<row>& rows);
    void recovery_sizes(std::vector<row>& rows);
    void recovery_memory(std::vector<row>& rows);
    void add_entry(std::vector<row>& rows);
    void one_channel(std::vector<row>& rows);
    void latency(std::vector<row>& rows);
    void sixteen_channels(std::vector<row>& rows);
    void inspect(std::vector<row>& rows);
    void blobs(std::vector<row>& rows);
    void compaction(std::vector<row>& rows);
    void replication(std::vector<row>& rows);
    void quorum(std::vector<row>& rows);
    void catch_up(std::vector<row>& rows);
    void rejoin(std::vector<row>& rows);
    void commit_modes(std::vector<row>& rows);
    void protection(std::vector<row>& rows);

private:
    // Runs a subcommand that changes the directory.
    fields on_a_copy(std::string const& directory, std::string const& subcommand,
                     std::vector<std::string> const& arguments = {});

    fields replicated(std::string const& mode, std::uint64_t entries, std::uint64_t sessions,
                      std::vector<std::string> const& more = {}, variables environment = {});

    // For latencies: with a pause after each session, so that epochs wait for no processor.
    fields replicated_at_leisure(std::vector<std::string> more = {});

    fields registered(std::string const& subcommand);

    static std::string millions(std::uint64_t entries);

    // Runs both, in an order that changes from call to call.
    template <typename First, typename Second>
    static std::pair<fields, fields> paired(std::size_t i, First const& first, Second const& second) {
        if (i % 2 == 0) {
            auto a = first();
            return {std::move(a), second()};
        }
        auto b = second();
        return {first(), std::move(b)};
    }

    template <typename First, typename Second>
    static comparison compared(std::size_t pairs, First const& first, Second const& second) {
        comparison result;
        for (std::size_t i = 0; i < pairs; ++i) {
            result.add(paired(i, first, second));
        }
        return result;
    }

    static fields recover(std::string const& directory) { return run_child({"recover", "--dir", directory}); }
    static fields recover_floor(std::string const& directory);
    static void check_equal(fields const& measured, fields const& floor);

    fields sessions(std::string const& subcommand, std::size_t channels);

    // Runs a subcommand in a new directory with one way to commit.
    fields committed(std::string const& mode, std::vector<std::string> arguments);

    void commit_latency(std::vector<row>& rows, std::size_t channels);
    void engine_rows(std::vector<row>& rows, std::size_t threads);
    void bulk_rows(std::vector<row>& rows);

    fields under_load(std::string const& subcommand);

    std::string fresh_directory();

    // The directory with so many entries; made once.
    std::string generated(std::uint64_t entries);

    std::string memory_directory() const;

    std::string work_;
    scale size_;
    bool random_keys_;
    std::uint64_t next_directory_ = 0;
};

}  // namespace bench
