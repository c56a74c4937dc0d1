// SPDX-License-Identifier: Apache-2.0
#include "table.h"

#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace bench {

namespace {

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

std::string json_number(std::optional<double> value) {
    return value ? shortest(*value) : "null";
}

}  // namespace

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

}  // namespace bench
