// SPDX-License-Identifier: Apache-2.0
// The options of the report, and which rows it has.
#include <cstdlib>
#include <iostream>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "measure.h"
#include "rows.h"
#include "table.h"

namespace bench {

namespace {

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
        {"compaction", &runner::compaction},
        {"replication", &runner::replication},
        {"quorum", &runner::quorum},
        {"catch-up", &runner::catch_up},
        {"rejoin", &runner::rejoin},
        {"commit-modes", &runner::commit_modes},
        {"protection", &runner::protection},
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
