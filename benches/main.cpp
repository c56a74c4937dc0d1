// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <exception>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "measure.h"

namespace {

constexpr char const* usage = R"(usage: limestone_bench <subcommand> [--name value ...]

  all             every row of the table, in child processes; see benches/README.md for its options
  generate        --dir D --entries N [--random-keys 1]
  recover         --dir D [--watch-memory 1]
  recover-floor   --dir D
  add-entry       --dir D [--channels 4] [--entries 100] [--sessions 5000]
  sessions        --dir D [--channels 1] [--entries 10] [--seconds 1] [--epoch-ms 3]
  sessions-floor  --dir D [--channels 1] [--entries 10] [--seconds 1]
  epoch-latency   --dir D [--channels 4] [--entries 10] [--rounds 400] [--epoch-ms 3]
  epoch-load, epoch-load-floor   as epoch-latency
  inspect         --dir D --tglogutil PROGRAM
  inspect-floor   --dir D [--threads 1]
  blobs, blobs-floor   --dir D [--blobs 10000] [--large-bytes 1073741824]
  compact         --dir D (changes it)
  compact-floor   --dir D
  compact-beside-writers  --dir D [--channels 4] [--entries 10] [--seconds 1] (changes it)
  replicated-load --dir D --mode none|async|strict [--channels 4] [--entries 1000] [--sessions 500] [--epoch-ms 3]
                  [--pause-us 0: after each session] [--replicas 1] [--quorum <all>]
                  [--stopped 0|1: the last replica is stopped with SIGSTOP]
  engine-like     --dir D [--threads 4] [--seconds 1] [--epoch-ms 3]
  commit-load     --dir D [--channels 4] [--entries 10] [--seconds 1] [--epoch-ms 3]
  commit-floor    --dir D [--bytes 1500] [--rounds 300] [--epoch-ms 3] [--channels 0] [--bytes-per-second 1e6]
  catch-up        --dir D [--channels 4] [--entries 1000] [--bytes 1000000000] [--epoch-ms 3]
  rejoin          --dir D [--bytes 1000000000] [--lacking 50000000]
)";

}  // namespace

int main(int argc, char** argv) {
    std::map<std::string, bench::fields (*)(bench::options const&)> const subcommands{
        {"generate", bench::generate},
        {"recover", bench::recover},
        {"recover-floor", bench::recover_floor},
        {"add-entry", bench::add_entry},
        {"sessions", bench::sessions},
        {"sessions-floor", bench::sessions_floor},
        {"epoch-latency", bench::epoch_latency},
        {"epoch-load", bench::epoch_load},
        {"epoch-load-floor", bench::epoch_load_floor},
        {"inspect", bench::inspect},
        {"inspect-floor", bench::inspect_floor},
        {"blobs", bench::blobs},
        {"blobs-floor", bench::blobs_floor},
        {"compact", bench::compact},
        {"compact-floor", bench::compact_floor},
        {"compact-beside-writers", bench::compact_beside_writers},
        {"replicated-load", bench::replicated_load},
        {"catch-up", bench::catch_up},
        {"rejoin", bench::rejoin},
        {"engine-like", bench::engine_like},
        {"commit-load", bench::commit_load},
        {"commit-floor", bench::commit_floor},
    };
    std::vector<std::string> arguments(argv + 1, argv + argc);
    try {
        if (arguments.empty()) {
            std::cerr << usage;
            return 2;
        }
        auto const name = arguments.front();
        arguments.erase(arguments.begin());
        if (name == "--help") {
            std::cout << usage;
            return EXIT_SUCCESS;
        }
        if (name == "all") {
            return bench::report(arguments);
        }
        auto const found = subcommands.find(name);
        if (found == subcommands.end()) {
            std::cerr << "unknown subcommand: " << name << "\n\n" << usage;
            return 2;
        }
        bench::print_fields(found->second(bench::options(arguments)));
        return EXIT_SUCCESS;
    } catch (std::exception const& error) {
        std::cerr << "limestone_bench: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
