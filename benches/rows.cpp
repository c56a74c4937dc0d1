// SPDX-License-Identifier: Apache-2.0
#include "rows.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace bench {

namespace fs = std::filesystem;

scale quick_scale() {
    scale result;
    result.recovery_pairs = 3;
    result.size_rounds = 2;
    result.add_entry_runs = 3;
    result.add_entry_sessions = 2000;
    result.session_pairs = 5;
    result.session_seconds = 0.4;
    result.latency_rounds = 300;
    result.inspect_pairs = 7;
    result.blob_pairs = 1;
    result.compaction_pairs = 3;
    result.replication_pairs = 3;
    result.replication_sessions = 150;
    result.name = "quick";
    return result;
}

scale smoke_scale() {
    scale result;
    result.entries = 40'000;
    result.recovery_pairs = 1;
    result.size_rounds = 1;
    result.add_entry_runs = 1;
    result.add_entry_sessions = 50;
    result.session_pairs = 1;
    result.session_seconds = 0.1;
    result.latency_rounds = 40;
    result.inspect_pairs = 1;
    result.blob_pairs = 1;
    result.blobs = 50;
    result.large_blob_bytes = 1U << 22U;
    result.compaction_pairs = 1;
    result.replication_pairs = 1;
    result.replication_sessions = 5;
    result.catch_up_bytes = 2'000'000;
    result.name = "smoke";
    return result;
}

runner::runner(std::string work_directory, scale size, bool random_keys)
    : work_(std::move(work_directory)), size_(std::move(size)), random_keys_(random_keys) {
    fs::remove_all(work_);
    fs::create_directories(work_);
}

runner::~runner() {
    std::error_code ignored;
    fs::remove_all(work_, ignored);
}

std::vector<double> comparison::ratios(std::string const& field) const {
    std::vector<double> result;
    for (auto const& [first, second] : pairs_) {
        result.push_back(first.at(field) / second.at(field));
    }
    return result;
}

std::vector<double> comparison::values(fields pair::*which, std::string const& field) const {
    std::vector<double> result;
    for (auto const& runs : pairs_) {
        result.push_back((runs.*which).at(field));
    }
    return result;
}

void runner::recovery(std::vector<row>& rows) {
    auto const directory = generated(size_.entries);
    check_equal(recover(directory), recover_floor(directory));  // also warms the page cache
    auto const runs = compared(
        size_.recovery_pairs, [&] { return recover(directory); }, [&] { return recover_floor(directory); });
    rows.push_back({"recovery, " + millions(size_.entries) + " entries",
                    "time over floor",
                    runs.ratio("seconds"),
                    better::lower,
                    2.5,
                    1.5,
                    {{"seconds", runs.first("seconds")}, {"floor_seconds", runs.second("seconds")}}});
}

void runner::recovery_sizes(std::vector<row>& rows) {
    auto const reference = generated(size_.entries);
    for (auto const entries : {size_.entries / 4, size_.entries * 4}) {
        auto const directory = generated(entries);
        recover(directory);
        recover(reference);
        auto const runs = compared(
            size_.size_rounds, [&] { return recover(directory); }, [&] { return recover(reference); });
        auto const times_as_many = static_cast<double>(entries) / static_cast<double>(size_.entries);
        rows.push_back({"recovery, " + millions(entries) + " entries",
                        "time per entry over " + millions(size_.entries),
                        runs.ratio("seconds") / times_as_many,
                        better::lower,
                        1.2,
                        1.0,
                        {{"seconds", runs.first("seconds")}}});
    }
}

void runner::recovery_memory(std::vector<row>& rows) {
    auto const directory = generated(size_.entries * 4);
    constexpr int budget_mib = 256;
    auto const result = run_child({"recover", "--dir", directory, "--watch-memory", "1"},
                                  {{"LIMESTONE_RECOVERY_MEMORY_MIB", std::to_string(budget_mib)}});
    rows.push_back(
        {"recovery memory, " + millions(size_.entries * 4) + " entries, 256 MiB",
         "peak private MiB (anonymous)",
         result.at("anonymous_kib") / 1024,
         better::lower,
         300,
         {},
         {{"seconds", result.at("seconds")}, {"private_mib_with_mapped_files", result.at("private_kib") / 1024}}});
}

void runner::add_entry(std::vector<row>& rows) {
    std::vector<double> cpu;
    for (std::size_t i = 0; i < size_.add_entry_runs; ++i) {
        auto const directory = memory_directory();
        auto const result =
            run_child({"add-entry", "--dir", directory, "--sessions", std::to_string(size_.add_entry_sessions)});
        fs::remove_all(directory);
        cpu.push_back(result.at("cpu_ns_per_entry"));
    }
    rows.push_back(
        {"add_entry, 4 channels x 100 entries", "CPU ns per entry", median(cpu), better::lower, 150, 80, {}});
}

void runner::one_channel(std::vector<row>& rows) {
    auto const runs = compared(
        size_.session_pairs, [&] { return sessions("sessions", 1); }, [&] { return sessions("sessions-floor", 1); });
    rows.push_back({"1 channel x 10 entries",
                    "sessions/s over write + fdatasync",
                    runs.ratio("per_second"),
                    better::higher,
                    0.9,
                    1.0,
                    {{"per_second", runs.first("per_second")}, {"floor_per_second", runs.second("per_second")}}});
}

void runner::latency(std::vector<row>& rows) {
    auto const directory = fresh_directory();
    auto const result =
        run_child({"epoch-latency", "--dir", directory, "--rounds", std::to_string(size_.latency_rounds)});
    fs::remove_all(directory);
    auto const library = result.at("library_us");
    rows.push_back({"epoch switch to callback, 4 x 10", "p50 over fdatasync of 4 logs, record",
                    library / result.at("floor_us"), better::lower, 1.3, 1.1, result});
    rows.push_back({"epoch switch to callback, 4 x 10",
                    "p50 over fdatasync of one log, record",
                    library / result.at("single_floor_us"),
                    better::lower,
                    {},
                    {},
                    {}});
    auto const runs = compared(
        size_.session_pairs, [&] { return under_load("epoch-load"); }, [&] { return under_load("epoch-load-floor"); });
    rows.push_back({"epoch switch to callback, under load",
                    "p50 over the same with bare calls",
                    runs.ratio("us"),
                    better::lower,
                    {},
                    {},
                    {{"us", runs.first("us")}}});
}

void runner::sixteen_channels(std::vector<row>& rows) {
    auto const sixteen_over_one = [&](std::string const& subcommand) {
        return compared(
            size_.session_pairs, [&] { return sessions(subcommand, 16); }, [&] { return sessions(subcommand, 1); });
    };
    auto const runs = sixteen_over_one("sessions");
    auto const floor = sixteen_over_one("sessions-floor");
    rows.push_back({"16 channels x 10 entries",
                    "sessions/s over 1 channel",
                    runs.ratio("per_second"),
                    better::higher,
                    4,
                    {},
                    {{"per_second", runs.first("per_second")}, {"floor_ratio", floor.ratio("per_second")}}});
}

void runner::inspect(std::vector<row>& rows) {
    auto const directory = generated(size_.entries);
    auto const threads = std::to_string(std::max(1U, std::thread::hardware_concurrency()));
    auto const measured = [&] {
        return run_child({"inspect", "--dir", directory, "--tglogutil", LIMESTONE_TGLOGUTIL});
    };
    auto const read = [&] { return run_child({"inspect-floor", "--dir", directory, "--threads", threads}); };
    measured();  // warms the page cache
    auto const bytes = read().at("bytes");
    auto const runs = compared(size_.inspect_pairs, measured, read);
    rows.push_back({"tglogutil inspect, " + std::to_string(static_cast<std::uint64_t>(bytes) >> 20U) + " MiB",
                    "time over reading it",
                    runs.ratio("seconds"),
                    better::lower,
                    2,
                    1.2,
                    {{"seconds", runs.first("seconds")}, {"floor_seconds", runs.second("seconds")}}});
}

void runner::blobs(std::vector<row>& rows) {
    std::vector<double> ratios;
    std::map<std::string, std::vector<double>> parts;
    for (std::size_t i = 0; i < size_.blob_pairs; ++i) {
        auto const [measured, floor] = paired(
            i, [&] { return registered("blobs"); }, [&] { return registered("blobs-floor"); });
        ratios.push_back(measured.at("seconds") / floor.at("seconds"));
        for (auto const& [name, value] : measured) {
            parts[name].push_back(value);
            parts["floor_" + name].push_back(floor.at(name));
        }
    }
    fields details;
    for (auto const& [name, values] : parts) {
        details[name] = median(values);
    }
    rows.push_back({std::to_string(size_.blobs) + " BLOBs of 4 KiB, then one of " +
                        std::to_string(size_.large_blob_bytes >> 20U) + " MiB",
                    "time over write + sync",
                    median(ratios),
                    better::lower,
                    1.2,
                    {},
                    details});
}

void runner::compaction(std::vector<row>& rows) {
    auto const directory = generated(size_.entries);
    auto const floor = [&] { return run_child({"compact-floor", "--dir", directory}); };
    floor();  // warms the page cache
    auto const runs = compared(
        size_.compaction_pairs, [&] { return on_a_copy(directory, "compact"); }, floor);
    rows.push_back({"online compaction, " + millions(size_.entries) + " entries",
                    "time over read, sort, write, sync",
                    runs.ratio("seconds"),
                    better::lower,
                    2.5,
                    1.5,
                    {{"seconds", runs.first("seconds")}, {"floor_seconds", runs.second("seconds")}}});
    std::vector<double> kept;
    std::vector<double> rates;
    for (std::size_t i = 0; i < size_.compaction_pairs; ++i) {
        auto const result =
            on_a_copy(directory, "compact-beside-writers", {"--seconds", std::to_string(size_.session_seconds)});
        rates.push_back(result.at("per_second"));
        kept.push_back(result.at("per_second") / result.at("alone_per_second"));
    }
    rows.push_back({"writers during a compaction",
                    "sessions/s over those without",
                    median(kept),
                    better::higher,
                    0.7,
                    0.9,
                    {{"per_second", median(rates)}}});
}

void runner::replication(std::vector<row>& rows) {
    struct limits {
        char const* mode;
        double must;
        double aim;
    };
    std::vector<double> cpu;
    double alone_cpu = 0;
    for (auto const& [mode, must, aim] : {limits{"async", 0.5, 0.7}, limits{"strict", 0.4, 0.6}}) {
        auto const runs = compared(
            size_.replication_pairs, [&, mode = mode] { return replicated(mode, 1000, size_.replication_sessions); },
            [&] { return replicated("none", 1000, size_.replication_sessions); });
        rows.push_back(
            {std::string("replication ") + mode + ", 4 x 1000",
             "MB/s over those without",
             runs.ratio("mb_per_second"),
             better::higher,
             must,
             aim,
             {{"mb_per_second", runs.first("mb_per_second")}, {"alone_mb_per_second", runs.second("mb_per_second")}}});
        auto const more = runs.ratios("cpu_ns_per_entry");
        cpu.insert(cpu.end(), more.begin(), more.end());
        alone_cpu = runs.second("cpu_ns_per_entry");
    }
    rows.push_back({"replication, primary",
                    "CPU per entry over that without",
                    median(cpu),
                    better::lower,
                    1.5,
                    1.2,
                    {{"alone_ns_per_entry", alone_cpu}}});
    std::vector<double> latencies;
    std::map<std::string, std::vector<double>> details;
    for (std::size_t i = 0; i < size_.replication_pairs; ++i) {
        auto const result = replicated_at_leisure();
        latencies.push_back(result.at("propagated_us") / result.at("stored_us"));
        details["stored"].push_back(result.at("stored_us"));
        details["propagated"].push_back(result.at("propagated_us"));
    }
    rows.push_back({"replication strict, 4 x 10, 3 ms",
                    "PROPAGATED p50 over STORED p50",
                    median(latencies),
                    better::lower,
                    2.0,
                    1.5,
                    {{"stored_us", median(details["stored"])}, {"propagated_us", median(details["propagated"])}}});
}

void runner::catch_up(std::vector<row>& rows) {
    std::vector<double> ratios;
    std::vector<double> rates;
    for (std::size_t i = 0; i < (size_.replication_pairs + 1) / 2; ++i) {
        auto const directory = fresh_directory();
        auto const result =
            run_child({"catch-up", "--dir", directory, "--bytes", std::to_string(size_.catch_up_bytes)});
        fs::remove_all(directory);
        rates.push_back(result.at("mb_per_second"));
        ratios.push_back(rates.back() / result.at("copy_mb_per_second"));
    }
    rows.push_back({"catch-up of " + std::to_string(size_.catch_up_bytes / 1'000'000) + " MB while writing",
                    "MB/s over copying with sync",
                    median(ratios),
                    better::higher,
                    0.5,
                    0.8,
                    {{"mb_per_second", median(rates)}}});
}

fields runner::on_a_copy(std::string const& directory, std::string const& subcommand,
                         std::vector<std::string> const& arguments) {
    auto const copy = fresh_directory();
    fs::copy(directory, copy, fs::copy_options::recursive);
    ::sync();  // the copying must not go on while something is measured
    std::vector<std::string> command{subcommand, "--dir", copy};
    command.insert(command.end(), arguments.begin(), arguments.end());
    auto result = run_child(command);
    fs::remove_all(copy);
    return result;
}

fields runner::replicated(std::string const& mode, std::uint64_t entries, std::uint64_t sessions,
                          std::vector<std::string> const& more, variables environment) {
    // As in `committed`: the longer of two runs must not compact more than the other.
    environment.emplace("LIMESTONE_COMPACTION", "off");
    auto const directory = fresh_directory();
    std::vector<std::string> command{
        "replicated-load",       "--dir", directory, "--mode", mode, "--entries", std::to_string(entries), "--sessions",
        std::to_string(sessions)};
    command.insert(command.end(), more.begin(), more.end());
    auto result = run_child(command, environment);
    fs::remove_all(directory);
    ::sync();
    return result;
}

fields runner::replicated_at_leisure(std::vector<std::string> more) {
    more.insert(more.end(), {"--pause-us", "1000"});
    return replicated("strict", 10, 2 * size_.replication_sessions, more);
}

fields runner::registered(std::string const& subcommand) {
    auto const directory = fresh_directory();
    auto result = run_child({subcommand, "--dir", directory, "--blobs", std::to_string(size_.blobs), "--large-bytes",
                             std::to_string(size_.large_blob_bytes)});
    fs::remove_all(directory);
    ::sync();  // the files of one run must not be written or deleted during the next
    return result;
}

std::string runner::millions(std::uint64_t entries) {
    std::ostringstream text;
    text << static_cast<double>(entries) / 1e6 << " M";
    return text.str();
}

fields runner::recover_floor(std::string const& directory) {
    return run_child({"recover-floor", "--dir", directory});
}

void runner::check_equal(fields const& measured, fields const& floor) {
    for (auto const* name : {"entries", "checksum"}) {
        if (measured.at(name) != floor.at(name)) {
            throw std::runtime_error(std::string("recovery and its floor disagree about ") + name);
        }
    }
}

fields runner::sessions(std::string const& subcommand, std::size_t channels) {
    auto const directory = fresh_directory();
    auto result = run_child({subcommand, "--dir", directory, "--channels", std::to_string(channels), "--seconds",
                             std::to_string(size_.session_seconds)});
    fs::remove_all(directory);
    return result;
}

fields runner::under_load(std::string const& subcommand) {
    auto const directory = fresh_directory();
    auto const rounds = std::to_string(size_.latency_rounds / 4);
    auto result = run_child({subcommand, "--dir", directory, "--rounds", rounds});
    fs::remove_all(directory);
    return result;
}

std::string runner::fresh_directory() {
    auto const directory = work_ + "/run_" + std::to_string(next_directory_++);
    fs::create_directories(directory);
    return directory;
}

std::string runner::generated(std::uint64_t entries) {
    auto directory = work_ + "/recovery_" + std::to_string(entries);
    if (!fs::exists(directory)) {
        // All entries are to be in log files, whenever a compaction would have begun by itself.
        run_child({"generate", "--dir", directory, "--entries", std::to_string(entries), "--random-keys",
                   random_keys_ ? "1" : "0"},
                  {{"LIMESTONE_COMPACTION", "off"}});
    }
    return directory;
}

std::string runner::memory_directory() const {
    std::string const base = "/dev/shm";
    auto const needed = size_.add_entry_sessions * 4 * 100 * entry_bytes * 5 / 4;
    struct statvfs space {};
    check(::statvfs(base.c_str(), &space), base.c_str());
    if (static_cast<std::uint64_t>(space.f_bavail) * space.f_frsize < needed) {
        throw std::runtime_error(base + " needs " + std::to_string(needed / 1'000'000) + " MB of free space");
    }
    std::string directory = base + "/limestone_bench_XXXXXX";
    if (::mkdtemp(directory.data()) == nullptr) {
        throw std::runtime_error("mkdtemp in " + base + ": " + std::strerror(errno));
    }
    return directory;
}

}  // namespace bench
