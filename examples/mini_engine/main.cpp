// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine.h"
#include "records.h"
#include "server.h"
#include "verify.h"

namespace {

constexpr int exit_bad_data = 1;
constexpr int exit_usage = 2;
constexpr int exit_error = 3;

constexpr char const* usage = R"(usage: mini_engine <command> [options]

  run     writes with several workers and acknowledges what is durable
  serve   takes entries from clients, `put <key> <value>` lines over TCP, and answers when they are durable
  verify  recovers a directory and checks that every acknowledged record is there and none that was removed
  print   recovers a directory and prints its entries (opening a directory changes it: use a copy)

options:
  --dir D           data directory (all commands)
  --ack-file F      where acknowledgements are kept, outside of the data directory (run, verify)
  --propagated-file F  the same for what a replica has confirmed; needs TSURUGI_REPLICATION_ENDPOINT (run)
  --report-ms P     print a line with the state of the epochs so often, 0: never (run, default 0)
  --workers N       worker threads, 1..1000 (run, default 4)
  --seconds S       time to run (run, default 1)
  --epoch-ms E      length of an epoch, 1..10000 (run, serve, default 3)
  --records R       records per session, 1..100000 (run, default 10)
  --value-bytes B   size of a value, 0..1000000 (run, default 100)
  --port P          where clients connect, 1..65535 (serve)
  --name N          what clients are greeted with (serve, default the directory)
  --durable S       when an entry is durable: stored or propagated (serve, default stored)
  --keep K          a session removes what its worker wrote K sessions before, so that there is garbage, 0: never
                    (run, default 0; with the same --records in all runs)
  --long-every L    one session in L stays open for two epochs, 0: none (run, default 25)

exit codes: 0 good, 1 acknowledged records lost or sessions incomplete, 2 usage, 3 error; the library aborts the
process when it cannot open or write the directory.
)";

class usage_error : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

using options = std::map<std::string, std::string>;

options parse_options(std::vector<std::string> const& arguments, std::vector<std::string> const& allowed) {
    options result;
    for (std::size_t i = 0; i < arguments.size(); i += 2) {
        auto const& name = arguments[i];
        bool known = false;
        for (auto const& candidate : allowed) {
            known = known || candidate == name;
        }
        if (!known) {
            throw usage_error("unknown option for this command: " + name);
        }
        if (i + 1 == arguments.size()) {
            throw usage_error("value expected after " + name);
        }
        result[name] = arguments[i + 1];
    }
    return result;
}

std::string text_option(options const& given, std::string const& name) {
    auto const found = given.find(name);
    if (found == given.end() || found->second.empty()) {
        throw usage_error("missing option " + name);
    }
    return found->second;
}

std::uint64_t number_option(options const& given, std::string const& name, std::uint64_t fallback, std::uint64_t min,
                            std::uint64_t max) {
    auto const found = given.find(name);
    if (found == given.end()) {
        return fallback;
    }
    auto const number = mini_engine::parse_number(found->second);
    if (!number || *number < min || *number > max) {
        throw usage_error(name + " expects a number in " + std::to_string(min) + ".." + std::to_string(max) +
                          ", found `" + found->second + "`");
    }
    return *number;
}

int run(std::vector<std::string> const& arguments) {
    auto const given =
        parse_options(arguments, {"--dir", "--ack-file", "--propagated-file", "--report-ms", "--workers", "--seconds",
                                  "--epoch-ms", "--records", "--value-bytes", "--keep", "--long-every"});
    mini_engine::engine_options engine_options;
    engine_options.directory = text_option(given, "--dir");
    engine_options.acknowledgement_file = text_option(given, "--ack-file");
    if (given.count("--propagated-file") > 0) {
        engine_options.propagated_file = text_option(given, "--propagated-file");
    }
    engine_options.report = std::chrono::milliseconds(number_option(given, "--report-ms", 0, 0, 1000000));
    engine_options.workers = number_option(given, "--workers", 4, 1, 1000);
    engine_options.duration = std::chrono::seconds(number_option(given, "--seconds", 1, 0, 1000000));
    engine_options.epoch = std::chrono::milliseconds(number_option(given, "--epoch-ms", 3, 1, 10000));
    engine_options.session_records = number_option(given, "--records", 10, 1, 100000);
    engine_options.value_bytes = number_option(given, "--value-bytes", 100, 0, 1000000);
    engine_options.kept_sessions = number_option(given, "--keep", 0, 0, 1000000000);
    engine_options.long_session_every = number_option(given, "--long-every", 25, 0, 1000000000);
    mini_engine::engine engine(engine_options);
    auto const result = engine.run();
    std::cout << "sessions=" << result.sessions << " records=" << result.records
              << " acknowledged=" << result.acknowledged_records << " propagated=" << result.propagated_records << '\n';
    return EXIT_SUCCESS;
}

int serve(std::vector<std::string> const& arguments) {
    auto const given = parse_options(arguments, {"--dir", "--port", "--name", "--durable", "--epoch-ms"});
    mini_engine::server_options server_options;
    server_options.directory = text_option(given, "--dir");
    server_options.name = given.count("--name") > 0 ? text_option(given, "--name") : server_options.directory;
    server_options.port = static_cast<std::uint16_t>(number_option(given, "--port", 0, 1, 65535));
    server_options.epoch = std::chrono::milliseconds(number_option(given, "--epoch-ms", 3, 1, 10000));
    auto const durable = given.count("--durable") > 0 ? text_option(given, "--durable") : "stored";
    if (durable != "stored" && durable != "propagated") {
        throw usage_error("--durable expects stored or propagated, found `" + durable + "`");
    }
    server_options.propagated = durable == "propagated";
    mini_engine::server(server_options).run();
    return EXIT_SUCCESS;
}

int verify(std::vector<std::string> const& arguments) {
    auto const given = parse_options(arguments, {"--dir", "--ack-file"});
    auto const result = mini_engine::verify(text_option(given, "--dir"), text_option(given, "--ack-file"), std::cerr);
    std::cout << "acknowledged=" << result.acknowledged << " recovered=" << result.recovered << " lost=" << result.lost
              << " half_sessions=" << result.half_sessions << " wrong_entries=" << result.wrong_entries << '\n';
    return result.good() ? EXIT_SUCCESS : exit_bad_data;
}

int print(std::vector<std::string> const& arguments) {
    auto const given = parse_options(arguments, {"--dir"});
    mini_engine::print_entries(text_option(given, "--dir"), std::cout);
    return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<std::string> arguments(argv + 1, argv + argc);
    if (arguments.empty()) {
        std::cerr << usage;
        return exit_usage;
    }
    auto const command = arguments.front();
    arguments.erase(arguments.begin());
    for (auto const& argument : arguments) {
        if (argument == "--help" || argument == "-h") {
            std::cout << usage;
            return EXIT_SUCCESS;
        }
    }
    try {
        if (command == "--help" || command == "-h" || command == "help") {
            std::cout << usage;
            return EXIT_SUCCESS;
        }
        if (command == "run") {
            return run(arguments);
        }
        if (command == "serve") {
            return serve(arguments);
        }
        if (command == "verify") {
            return verify(arguments);
        }
        if (command == "print") {
            return print(arguments);
        }
        throw usage_error("unknown command: " + command);
    } catch (usage_error const& error) {
        std::cerr << "mini_engine: " << error.what() << "\n\n" << usage;
        return exit_usage;
    } catch (std::exception const& error) {
        std::cerr << "mini_engine: " << error.what() << '\n';
        return exit_error;
    }
}
