// SPDX-License-Identifier: Apache-2.0
// Runs every row of the table. A row that is a ratio is the median of ratios of runs made in pairs, one directly after
// the other, in alternating order: the machine may change its speed between pairs but hardly within one.
#include <sys/statvfs.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "measure.h"

namespace bench {

namespace {

namespace fs = std::filesystem;

enum class better { lower, higher };

struct row {
    std::string benchmark;
    std::string measure;
    double value;
    better direction;
    std::optional<double> must;
    std::optional<double> aim;
    fields details;

    [[nodiscard]] bool reaches(double limit) const noexcept {
        return direction == better::lower ? value <= limit : value >= limit;
    }
    [[nodiscard]] bool good() const noexcept { return !must || reaches(*must); }
};

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
    std::string name = "full";
};

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
    result.name = "quick";
    return result;
}

// Only shows that everything runs.
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
    result.name = "smoke";
    return result;
}

class runner {
public:
    runner(std::string work_directory, scale size, bool random_keys)
        : work_(std::move(work_directory)), size_(std::move(size)), random_keys_(random_keys) {
        fs::remove_all(work_);
        fs::create_directories(work_);
    }
    ~runner() {
        std::error_code ignored;
        fs::remove_all(work_, ignored);
    }
    runner(runner const&) = delete;
    runner& operator=(runner const&) = delete;
    runner(runner&&) = delete;
    runner& operator=(runner&&) = delete;

    void recovery(std::vector<row>& rows) {
        auto const directory = generated(size_.entries);
        std::vector<double> ratios;
        std::vector<double> seconds;
        std::vector<double> floor_seconds;
        check_equal(recover(directory), recover_floor(directory));  // also warms the page cache
        for (std::size_t i = 0; i < size_.recovery_pairs; ++i) {
            auto const [measured, floor] = paired(
                i, [&] { return recover(directory); }, [&] { return recover_floor(directory); });
            ratios.push_back(measured.at("seconds") / floor.at("seconds"));
            seconds.push_back(measured.at("seconds"));
            floor_seconds.push_back(floor.at("seconds"));
        }
        rows.push_back({"recovery, " + millions(size_.entries) + " entries",
                        "time over floor",
                        median(ratios),
                        better::lower,
                        2.5,
                        1.5,
                        {{"seconds", median(seconds)}, {"floor_seconds", median(floor_seconds)}}});
    }

    void recovery_sizes(std::vector<row>& rows) {
        auto const reference = generated(size_.entries);
        for (auto const entries : {size_.entries / 4, size_.entries * 4}) {
            auto const directory = generated(entries);
            recover(directory);
            recover(reference);
            std::vector<double> ratios;
            std::vector<double> seconds;
            for (std::size_t i = 0; i < size_.size_rounds; ++i) {
                auto const [measured, base] = paired(
                    i, [&] { return recover(directory); }, [&] { return recover(reference); });
                seconds.push_back(measured.at("seconds"));
                ratios.push_back(measured.at("seconds") / base.at("seconds") * static_cast<double>(size_.entries) /
                                 static_cast<double>(entries));
            }
            rows.push_back({"recovery, " + millions(entries) + " entries",
                            "time per entry over " + millions(size_.entries),
                            median(ratios),
                            better::lower,
                            1.2,
                            1.0,
                            {{"seconds", median(seconds)}}});
        }
    }

    void recovery_memory(std::vector<row>& rows) {
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

    void add_entry(std::vector<row>& rows) {
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

    void one_channel(std::vector<row>& rows) {
        std::vector<double> ratios;
        std::vector<double> rates;
        std::vector<double> floor_rates;
        for (std::size_t i = 0; i < size_.session_pairs; ++i) {
            auto const [measured, floor] = paired(
                i, [&] { return sessions("sessions", 1); }, [&] { return sessions("sessions-floor", 1); });
            rates.push_back(measured.at("per_second"));
            floor_rates.push_back(floor.at("per_second"));
            ratios.push_back(rates.back() / floor_rates.back());
        }
        rows.push_back({"1 channel x 10 entries",
                        "sessions/s over write + fdatasync",
                        median(ratios),
                        better::higher,
                        0.9,
                        1.0,
                        {{"per_second", median(rates)}, {"floor_per_second", median(floor_rates)}}});
    }

    void latency(std::vector<row>& rows) {
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
        std::vector<double> ratios;
        std::vector<double> latencies;
        for (std::size_t i = 0; i < size_.session_pairs; ++i) {
            auto const [measured, floor] = paired(
                i, [&] { return under_load("epoch-load"); }, [&] { return under_load("epoch-load-floor"); });
            latencies.push_back(measured.at("us"));
            ratios.push_back(measured.at("us") / floor.at("us"));
        }
        rows.push_back({"epoch switch to callback, under load",
                        "p50 over the same with bare calls",
                        median(ratios),
                        better::lower,
                        {},
                        {},
                        {{"us", median(latencies)}}});
    }

    void sixteen_channels(std::vector<row>& rows) {
        std::vector<double> ratios;
        std::vector<double> floor_ratios;
        std::vector<double> rates;
        for (std::size_t i = 0; i < size_.session_pairs; ++i) {
            auto const [sixteen, one] = paired(
                i, [&] { return sessions("sessions", 16); }, [&] { return sessions("sessions", 1); });
            rates.push_back(sixteen.at("per_second"));
            ratios.push_back(rates.back() / one.at("per_second"));
            auto const [floor_sixteen, floor_one] = paired(
                i, [&] { return sessions("sessions-floor", 16); }, [&] { return sessions("sessions-floor", 1); });
            floor_ratios.push_back(floor_sixteen.at("per_second") / floor_one.at("per_second"));
        }
        rows.push_back({"16 channels x 10 entries",
                        "sessions/s over 1 channel",
                        median(ratios),
                        better::higher,
                        4,
                        {},
                        {{"per_second", median(rates)}, {"floor_ratio", median(floor_ratios)}}});
    }

    void inspect(std::vector<row>& rows) {
        auto const directory = generated(size_.entries);
        auto const threads = std::to_string(std::max(1U, std::thread::hardware_concurrency()));
        auto const measured = [&] {
            return run_child({"inspect", "--dir", directory, "--tglogutil", LIMESTONE_TGLOGUTIL}).at("seconds");
        };
        auto const read = [&] { return run_child({"inspect-floor", "--dir", directory, "--threads", threads}); };
        measured();  // warms the page cache
        auto const bytes = read().at("bytes");
        std::vector<double> ratios;
        std::vector<double> seconds;
        std::vector<double> floor_seconds;
        for (std::size_t i = 0; i < size_.inspect_pairs; ++i) {
            auto const [tool, floor] = paired(
                i,
                [&] {
                    return fields{{"seconds", measured()}};
                },
                read);
            seconds.push_back(tool.at("seconds"));
            floor_seconds.push_back(floor.at("seconds"));
            ratios.push_back(seconds.back() / floor_seconds.back());
        }
        rows.push_back({"tglogutil inspect, " + std::to_string(static_cast<std::uint64_t>(bytes) >> 20U) + " MiB",
                        "time over reading it",
                        median(ratios),
                        better::lower,
                        2,
                        1.2,
                        {{"seconds", median(seconds)}, {"floor_seconds", median(floor_seconds)}}});
    }

    void blobs(std::vector<row>& rows) {
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

private:
    fields registered(std::string const& subcommand) {
        auto const directory = fresh_directory();
        auto result = run_child({subcommand, "--dir", directory, "--blobs", std::to_string(size_.blobs),
                                 "--large-bytes", std::to_string(size_.large_blob_bytes)});
        fs::remove_all(directory);
        ::sync();  // the files of one run must not be written or deleted during the next
        return result;
    }

    static std::string millions(std::uint64_t entries) {
        std::ostringstream text;
        text << static_cast<double>(entries) / 1e6 << " M";
        return text.str();
    }

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

    static fields recover(std::string const& directory) { return run_child({"recover", "--dir", directory}); }
    static fields recover_floor(std::string const& directory) {
        return run_child({"recover-floor", "--dir", directory});
    }
    static void check_equal(fields const& measured, fields const& floor) {
        for (auto const* name : {"entries", "checksum"}) {
            if (measured.at(name) != floor.at(name)) {
                throw std::runtime_error(std::string("recovery and its floor disagree about ") + name);
            }
        }
    }

    fields sessions(std::string const& subcommand, std::size_t channels) {
        auto const directory = fresh_directory();
        auto result = run_child({subcommand, "--dir", directory, "--channels", std::to_string(channels), "--seconds",
                                 std::to_string(size_.session_seconds)});
        fs::remove_all(directory);
        return result;
    }

    fields under_load(std::string const& subcommand) {
        auto const directory = fresh_directory();
        auto const rounds = std::to_string(size_.latency_rounds / 4);
        auto result = run_child({subcommand, "--dir", directory, "--rounds", rounds});
        fs::remove_all(directory);
        return result;
    }

    std::string fresh_directory() {
        auto const directory = work_ + "/run_" + std::to_string(next_directory_++);
        fs::create_directories(directory);
        return directory;
    }

    // The directory with so many entries; made once.
    std::string generated(std::uint64_t entries) {
        auto directory = work_ + "/recovery_" + std::to_string(entries);
        if (!fs::exists(directory)) {
            run_child({"generate", "--dir", directory, "--entries", std::to_string(entries), "--random-keys",
                       random_keys_ ? "1" : "0"});
        }
        return directory;
    }

    std::string memory_directory() const {
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

    std::string work_;
    scale size_;
    bool random_keys_;
    std::uint64_t next_directory_ = 0;
};

std::string rounded(double value) {
    std::ostringstream text;
    text.setf(std::ios::fixed);
    text.precision(std::fabs(value) < 10 ? 2 : std::fabs(value) < 100 ? 1 : 0);
    text << value;
    return text.str();
}

std::string shortest(double value) {
    std::ostringstream text;
    text << value;
    return text.str();
}

std::string limit(row const& row, std::optional<double> value) {
    return value ? (row.direction == better::lower ? "<= " : ">= ") + shortest(*value) : "";
}

void print_table(std::vector<row> const& rows) {
    constexpr char const* format = "%-45s  %-37s  %8s  %7s  %7s  %s\n";
    std::printf(format, "benchmark", "measure", "value", "must", "aim", "ok");
    for (auto const& row : rows) {
        auto const* ok = !row.must ? "" : !row.good() ? "NO" : row.aim && row.reaches(*row.aim) ? "yes, aim" : "yes";
        std::printf(format, row.benchmark.c_str(), row.measure.c_str(), rounded(row.value).c_str(),
                    limit(row, row.must).c_str(), limit(row, row.aim).c_str(), ok);
    }
    std::fflush(stdout);
}

std::string json_number(std::optional<double> value) {
    return value ? shortest(*value) : "null";
}

void write_json(std::string const& path, std::string const& scale_name, std::vector<row> const& rows) {
    std::ofstream out(path);
    out.precision(10);
    out << "{\n  \"unix_time\": " << std::time(nullptr) << ",\n  \"scale\": \"" << scale_name
        << "\",\n  \"cpus\": " << std::thread::hardware_concurrency() << ",\n  \"rows\": [";
    char const* separator = "\n";
    for (auto const& row : rows) {
        out << separator << "    {\"benchmark\": \"" << row.benchmark << "\", \"measure\": \"" << row.measure
            << "\", \"value\": " << row.value << ", \"better\": \""
            << (row.direction == better::lower ? "lower" : "higher") << "\", \"must\": " << json_number(row.must)
            << ", \"aim\": " << json_number(row.aim) << ", \"ok\": " << (row.good() ? "true" : "false")
            << ", \"details\": {";
        char const* comma = "";
        for (auto const& [name, value] : row.details) {
            out << comma << '"' << name << "\": " << value;
            comma = ", ";
        }
        out << "}}";
        separator = ",\n";
    }
    out << "\n  ]\n}\n";
    if (!out.flush()) {
        throw std::runtime_error("cannot write " + path);
    }
}

std::set<std::string> split(std::string const& list) {
    std::set<std::string> names;
    std::istringstream text(list);
    std::string name;
    while (std::getline(text, name, ',')) {
        names.insert(name);
    }
    return names;
}

}  // namespace

int report(std::vector<std::string> const& arguments) {
    std::vector<std::pair<std::string, void (runner::*)(std::vector<row>&)>> const benchmarks{
        {"recovery", &runner::recovery},
        {"sizes", &runner::recovery_sizes},
        {"memory", &runner::recovery_memory},
        {"add-entry", &runner::add_entry},
        {"sessions", &runner::one_channel},
        {"latency", &runner::latency},
        {"channels", &runner::sixteen_channels},
        {"inspect", &runner::inspect},
        {"blobs", &runner::blobs},
    };
    scale size;
    bool report_only = false;
    bool random_keys = false;
    std::set<std::string> only;
    std::string work_directory;
    std::string json;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        auto const& argument = arguments[i];
        auto const value = [&] {
            if (i + 1 == arguments.size()) {
                throw std::invalid_argument("value expected after " + argument);
            }
            return arguments[++i];
        };
        if (argument == "--quick") {
            size = quick_scale();
        } else if (argument == "--smoke") {
            size = smoke_scale();
            report_only = true;
        } else if (argument == "--report-only") {
            report_only = true;
        } else if (argument == "--random-keys") {
            random_keys = true;
        } else if (argument == "--only") {
            only = split(value());
        } else if (argument == "--work-dir") {
            work_directory = value();
        } else if (argument == "--json") {
            json = value();
        } else {
            throw std::invalid_argument("unknown option: " + argument);
        }
    }
    if (work_directory.empty() || json.empty()) {
        throw std::invalid_argument("missing option --work-dir or --json");
    }
    for (auto const& name : only) {
        bool known = false;
        for (auto const& benchmark : benchmarks) {
            known = known || benchmark.first == name;
        }
        if (!known) {
            throw std::invalid_argument("unknown row: " + name);
        }
    }

    std::vector<row> rows;
    runner runner(work_directory, size, random_keys);
    for (auto const& [name, measure] : benchmarks) {
        if (only.empty() || only.count(name) > 0) {
            std::cerr << "measuring " << name << " ...\n";
            (runner.*measure)(rows);
        }
    }
    print_table(rows);
    write_json(json, size.name, rows);
    std::cout << "written to " << json << '\n';
    bool good = true;
    for (auto const& row : rows) {
        good = good && row.good();
    }
    return good || report_only ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace bench
