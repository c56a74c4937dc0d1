// SPDX-License-Identifier: Apache-2.0
#include "measure.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace bench {

double cpu_seconds() {
    rusage usage{};
    check(::getrusage(RUSAGE_SELF, &usage), "getrusage");
    auto const seconds = [](timeval const& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double median(std::vector<double> values) {
    if (values.empty()) {
        throw std::logic_error("median of nothing");
    }
    std::sort(values.begin(), values.end());
    auto const middle = values.size() / 2;
    return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

options::options(std::vector<std::string> const& arguments) {
    if (arguments.size() % 2 != 0) {
        throw std::invalid_argument("expected `--name value` pairs");
    }
    for (std::size_t i = 0; i < arguments.size(); i += 2) {
        values_[arguments[i]] = arguments[i + 1];
    }
}

std::string options::text(std::string const& name) const {
    auto const found = values_.find(name);
    if (found == values_.end()) {
        throw std::invalid_argument("missing option " + name);
    }
    return found->second;
}

std::uint64_t options::number(std::string const& name, std::uint64_t fallback) const {
    auto const found = values_.find(name);
    return found == values_.end() ? fallback : std::stoull(found->second);
}

double options::real(std::string const& name, double fallback) const {
    auto const found = values_.find(name);
    return found == values_.end() ? fallback : std::stod(found->second);
}

namespace {

fields parse_fields(std::string const& output) {
    fields results;
    std::istringstream lines(output);
    std::string line;
    while (std::getline(lines, line)) {
        auto const separator = line.find('=');
        if (separator != std::string::npos) {
            results[line.substr(0, separator)] = std::stod(line.substr(separator + 1));
        }
    }
    return results;
}

}  // namespace

fields run_child(std::vector<std::string> const& arguments, variables const& environment) {
    std::string command_line;
    std::vector<char*> argv;
    std::string program = "/proc/self/exe";
    argv.push_back(program.data());
    std::vector<std::string> copies = arguments;
    for (auto& argument : copies) {
        argv.push_back(argument.data());
        command_line += ' ' + argument;
    }
    argv.push_back(nullptr);

    std::array<int, 2> ends{};
    check(::pipe2(ends.data(), O_CLOEXEC), "pipe2");
    auto const child = check(::fork(), "fork");
    if (child == 0) {
        ::dup2(ends[1], STDOUT_FILENO);
        for (auto const& [name, value] : environment) {
            ::setenv(name.c_str(), value.c_str(), 1);
        }
        ::execv(program.c_str(), argv.data());
        ::_exit(127);
    }
    ::close(ends[1]);
    std::string output;
    std::array<char, 4096> buffer{};
    for (;;) {
        auto const count = ::read(ends[0], buffer.data(), buffer.size());
        if (count > 0) {
            output.append(buffer.data(), static_cast<std::size_t>(count));
        } else if (count == 0 || errno != EINTR) {
            break;
        }
    }
    ::close(ends[0]);
    int status = 0;
    check(::waitpid(child, &status, 0), "waitpid");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        throw std::runtime_error("limestone_bench" + command_line + ": failed with wait status " +
                                 std::to_string(status));
    }
    return parse_fields(output);
}

void print_fields(fields const& results) {
    for (auto const& [name, value] : results) {
        std::printf("%s=%.17g\n", name.c_str(), value);
    }
}

file::file(std::string const& path, int flags)
    : descriptor_(check(::open(path.c_str(), flags | O_CLOEXEC, 0666), path.c_str())) {}

void file::write(std::string_view bytes) const {
    while (!bytes.empty()) {
        auto const written = check(::write(descriptor_, bytes.data(), bytes.size()), "write");
        bytes.remove_prefix(static_cast<std::size_t>(written));
    }
}

}  // namespace bench
