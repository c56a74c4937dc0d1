// SPDX-License-Identifier: Apache-2.0
// Rows of replication to two replicas, of which one or both have to have an epoch.
#include <map>
#include <string>
#include <vector>

#include "rows.h"

namespace bench {

void runner::quorum(std::vector<row>& rows) {
    std::vector<double> latencies;
    std::vector<double> throughput;
    std::map<std::string, std::vector<double>> details;
    for (std::size_t i = 0; i < size_.replication_pairs; ++i) {
        auto const sessions = 2 * size_.replication_sessions;
        auto const one = replicated("strict", 10, sessions);
        auto const stopped = replicated("strict", 10, sessions, {"--replicas", "2", "--quorum", "1", "--stopped", "1"});
        latencies.push_back(stopped.at("propagated_us") / one.at("propagated_us"));
        details["one"].push_back(one.at("propagated_us"));
        details["stopped"].push_back(stopped.at("propagated_us"));
        auto const none = replicated("none", 1000, size_.replication_sessions);
        auto const both = replicated("strict", 1000, size_.replication_sessions, {"--replicas", "2"});
        throughput.push_back(both.at("mb_per_second") / none.at("mb_per_second"));
        details["none"].push_back(none.at("mb_per_second"));
        details["both"].push_back(both.at("mb_per_second"));
    }
    rows.push_back({"replication 1 of 2, one stopped, 4 x 10",
                    "PROPAGATED p50 over that with one replica",
                    median(latencies),
                    better::lower,
                    1.2,
                    1.05,
                    {{"stopped_us", median(details["stopped"])}, {"one_us", median(details["one"])}}});
    rows.push_back({"replication 2 of 2, 4 x 1000",
                    "MB/s over those without",
                    median(throughput),
                    better::higher,
                    0.5,
                    0.7,
                    {{"mb_per_second", median(details["both"])}, {"alone_mb_per_second", median(details["none"])}}});
}

}  // namespace bench
