// SPDX-License-Identifier: Apache-2.0
// `tglogutil inspect` as a user runs it, and the reading that it cannot avoid.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <atomic>
#include <exception>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "measure.h"

extern char** environ;  // NOLINT: declared nowhere else

namespace bench {

namespace {

constexpr std::size_t piece_bytes = 1U << 20U;

std::uint64_t read_file(std::string const& path) {
    file const input(path, O_RDONLY);
    std::vector<char> piece(piece_bytes);
    for (std::uint64_t total = 0;;) {
        auto const count = check(::read(input.descriptor(), piece.data(), piece.size()), path.c_str());
        if (count == 0) {
            return total;
        }
        total += static_cast<std::uint64_t>(count);
    }
}

}  // namespace

// From the start of the process to its end.
fields inspect(options const& given) {
    std::string program = given.text("--tglogutil");
    std::string subcommand = "inspect";
    std::string directory = given.text("--dir");
    std::vector<char*> argv{program.data(), subcommand.data(), directory.data(), nullptr};
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    auto const begin = now_seconds();
    pid_t child = 0;
    errno = ::posix_spawn(&child, program.c_str(), &actions, nullptr, argv.data(), environ);
    check(errno == 0 ? 0 : -1, program.c_str());
    int status = 0;
    check(::waitpid(child, &status, 0), "waitpid");
    auto const end = now_seconds();
    ::posix_spawn_file_actions_destroy(&actions);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        throw std::runtime_error(program + " inspect " + directory + ": wait status " + std::to_string(status));
    }
    return {{"seconds", end - begin}};
}

// The log files read from front to back in pieces of 1 MiB, by `--threads` threads that take a file each.
fields inspect_floor(options const& given) {
    auto const begin = now_seconds();
    std::vector<std::string> paths;
    for (auto const& entry : std::filesystem::directory_iterator(given.text("--dir"))) {
        if (entry.path().filename().string().compare(0, 5, "pwal_") == 0) {
            paths.push_back(entry.path().string());
        }
    }
    auto const thread_count = given.number("--threads", 1);
    std::vector<std::exception_ptr> errors(thread_count);
    std::atomic<std::size_t> next_file{0};
    std::atomic<std::uint64_t> bytes{0};
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < thread_count; ++i) {
        threads.emplace_back([&, i] {
            try {
                for (auto f = next_file++; f < paths.size(); f = next_file++) {
                    bytes += read_file(paths[f]);
                }
            } catch (...) {
                errors[i] = std::current_exception();
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    for (auto const& error : errors) {
        if (error) {
            std::rethrow_exception(error);
        }
    }
    return {{"seconds", now_seconds() - begin}, {"bytes", static_cast<double>(bytes)}};
}

}  // namespace bench
