// SPDX-License-Identifier: Apache-2.0
// The rows that compare the ways to commit, with each other and with one write and one sync of a prepared file.
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "rows.h"

namespace bench {

namespace fs = std::filesystem;

fields runner::committed(std::string const& mode, std::vector<std::string> arguments) {
    auto const directory = fresh_directory();
    arguments.insert(arguments.begin() + 1, {"--dir", directory});
    // A compaction that begins by itself would be measured only where much is written.
    auto result = run_child(arguments, {{"LIMESTONE_COMMIT", mode}, {"LIMESTONE_COMPACTION", "off"}});
    fs::remove_all(directory);
    return result;
}

void runner::commit_latency(std::vector<row>& rows, std::size_t channels) {
    auto const name = std::to_string(channels) + " x 10, epoch 3 ms";
    std::map<std::string, std::vector<double>> found;
    for (std::size_t i = 0; i < size_.session_pairs; ++i) {
        std::vector<std::string> const load{"commit-load", "--channels", std::to_string(channels), "--seconds",
                                            std::to_string(size_.session_seconds)};
        auto const [journal, direct] = paired(
            i, [&] { return committed("journal", load); }, [&] { return committed("direct", load); });
        auto const bytes = std::to_string(static_cast<std::uint64_t>(journal.at("bytes_per_epoch")));
        auto const floor = committed("journal", {"commit-floor", "--bytes", bytes});
        auto const beside =
            committed("journal", {"commit-floor", "--bytes", bytes, "--channels", std::to_string(channels),
                                  "--bytes-per-second", std::to_string(journal.at("mb_per_second") * 1e6)});
        found["p50 beside"].push_back(journal.at("epoch_p50_us") / beside.at("sync_p50_us"));
        found["p99 beside"].push_back(journal.at("epoch_p99_us") / beside.at("sync_p99_us"));
        found["p50"].push_back(journal.at("epoch_p50_us") / floor.at("sync_p50_us"));
        found["p99"].push_back(journal.at("epoch_p99_us") / floor.at("sync_p99_us"));
        found["rate"].push_back(journal.at("per_second") / direct.at("per_second"));
        found["cpu"].push_back(journal.at("cpu_ns_per_entry") / direct.at("cpu_ns_per_entry"));
        found["end"].push_back(journal.at("end_p50_us"));
        found["us"].push_back(journal.at("epoch_p50_us"));
        found["per_second"].push_back(journal.at("per_second"));
    }
    std::map<std::size_t, std::pair<double, double>> const rates{
        {1, {10, 30}}, {4, {5, 15}}, {16, {3, 8}}, {64, {3, 6}}};
    auto const [must, aim] = rates.at(channels);
    rows.push_back({name,
                    "switch to callback, p50 over one prepared sync",
                    median(found["p50"]),
                    better::lower,
                    2.5,
                    1.5,
                    {{"us", median(found["us"])}}});
    rows.push_back({name, "the same, p99", median(found["p99"]), better::lower, 4, 2, {}});
    auto const loaded = "the same over the sync of a disk and processors as busy";
    rows.push_back({name, std::string(loaded) + ", p50", median(found["p50 beside"]), better::lower, {}, {}, {}});
    rows.push_back({name, std::string(loaded) + ", p99", median(found["p99 beside"]), better::lower, {}, {}, {}});
    rows.push_back({name,
                    "sessions/s, journal over direct",
                    median(found["rate"]),
                    better::higher,
                    must,
                    aim,
                    {{"per_second", median(found["per_second"])}}});
    if (channels == 4) {
        rows.push_back({name, "CPU per entry, journal over direct", median(found["cpu"]), better::lower, 0.5, 0.3, {}});
        rows.push_back({name, "end_session, p50 us", median(found["end"]), better::lower, 5, 2, {}});
    }
}

void runner::engine_rows(std::vector<row>& rows, std::size_t threads) {
    std::vector<double> rates;
    std::vector<double> ratios;
    std::vector<double> locks;
    fields last;
    for (std::size_t i = 0; i < size_.session_pairs; ++i) {
        std::vector<std::string> const load{"engine-like", "--threads", std::to_string(threads), "--seconds",
                                            std::to_string(size_.session_seconds)};
        auto const [journal, direct] = paired(
            i, [&] { return committed("journal", load); }, [&] { return committed("direct", load); });
        rates.push_back(journal.at("per_second"));
        ratios.push_back(rates.back() / direct.at("per_second"));
        locks.push_back(journal.at("lock_p99_us"));
        last = journal;
    }
    std::map<std::size_t, double> const musts{{1, 10}, {4, 5}, {16, 2.5}};
    auto const name = "as the engine, " + std::to_string(threads) + " threads";
    last["per_second"] = median(rates);
    rows.push_back(
        {name, "transactions/s, journal over direct", median(ratios), better::higher, musts.at(threads), {}, last});
    rows.push_back({name, "epoch lock, p99 us of waiting", median(locks), better::lower, 50, {}, {}});
}

void runner::bulk_rows(std::vector<row>& rows) {
    std::vector<double> ratios;
    std::vector<double> speeds;
    for (std::size_t i = 0; i < size_.session_pairs; ++i) {
        std::vector<std::string> const load{"commit-load", "--entries", "1000", "--seconds",
                                            std::to_string(size_.session_seconds)};
        auto const [journal, direct] = paired(
            i, [&] { return committed("journal", load); }, [&] { return committed("direct", load); });
        speeds.push_back(journal.at("mb_per_second"));
        ratios.push_back(speeds.back() / direct.at("mb_per_second"));
    }
    rows.push_back({"4 x 1000, epoch 3 ms",
                    "MB/s, journal over direct",
                    median(ratios),
                    better::higher,
                    0.9,
                    1.2,
                    {{"mb_per_second", median(speeds)}}});
}

void runner::commit_modes(std::vector<row>& rows) {
    for (std::size_t const channels : {1, 4, 16, 64}) {
        commit_latency(rows, channels);
    }
    for (std::size_t const threads : {1, 4, 16}) {
        engine_rows(rows, threads);
    }
    bulk_rows(rows);
}

}  // namespace bench
