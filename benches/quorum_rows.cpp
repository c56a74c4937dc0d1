// SPDX-License-Identifier: Apache-2.0
// Rows of replication to two replicas, of which one or both have to have an epoch, and of a directory that becomes a
// replica again.
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "rows.h"

namespace bench {

void runner::quorum(std::vector<row>& rows) {
    auto const latency = compared(
        size_.replication_pairs,
        [&] {
            return replicated_at_leisure({"--replicas", "2", "--quorum", "1", "--stopped", "1"});
        },
        [&] { return replicated_at_leisure(); });
    rows.push_back({"replication 1 of 2, one stopped, 4 x 10",
                    "PROPAGATED p50 over that with one replica",
                    latency.ratio("propagated_us"),
                    better::lower,
                    1.2,
                    1.05,
                    {{"stopped_us", latency.first("propagated_us")}, {"one_us", latency.second("propagated_us")}}});
    auto const throughput = compared(
        size_.replication_pairs,
        [&] {
            return replicated("strict", 1000, size_.replication_sessions, {"--replicas", "2"});
        },
        [&] { return replicated("none", 1000, size_.replication_sessions); });
    rows.push_back({"replication 2 of 2, 4 x 1000",
                    "MB/s over those without",
                    throughput.ratio("mb_per_second"),
                    better::higher,
                    0.5,
                    0.7,
                    {{"mb_per_second", throughput.first("mb_per_second")},
                     {"alone_mb_per_second", throughput.second("mb_per_second")}}});
}

void runner::rejoin(std::vector<row>& rows) {
    std::vector<double> ratios;
    std::map<std::string, std::vector<double>> parts;
    auto const lacking = size_.catch_up_bytes / 20;
    for (std::size_t i = 0; i < size_.replication_pairs; ++i) {
        auto const directory = fresh_directory();
        auto const result = run_child({"rejoin", "--dir", directory, "--bytes", std::to_string(size_.catch_up_bytes),
                                       "--lacking", std::to_string(lacking)},
                                      {{"LIMESTONE_COMPACTION", "off"}});
        std::filesystem::remove_all(directory);
        ::sync();
        ratios.push_back(result.at("seconds") / result.at("floor_seconds"));
        for (auto const& [name, value] : result) {
            parts[name].push_back(value);
        }
    }
    fields details;
    for (auto const& [name, values] : parts) {
        details[name] = median(values);
    }
    rows.push_back({"rejoin with rewind, " + std::to_string(size_.catch_up_bytes / 1'000'000) + " MB, lacks " +
                        std::to_string(lacking / 1'000'000),
                    "time over sending that with sync",
                    median(ratios),
                    better::lower,
                    1.5,
                    {},
                    details});
}

}  // namespace bench
