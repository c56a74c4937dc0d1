// SPDX-License-Identifier: Apache-2.0
// The rows of what protects replication: a MAC on every frame, and TLS, each against the same pair without.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "rows.h"

namespace bench {

namespace fs = std::filesystem;

namespace {

variables with_secret(fs::path const& directory) {
    auto const file = directory / "secret";
    std::ofstream(file) << "a secret of both sides of the benchmark";
    fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write);
    return {{"TSURUGI_REPLICATION_SECRET_FILE", file.string()}};
}

// A certificate that both sides show, and that is its own CA.
variables with_tls(fs::path const& directory) {
    auto const certificate = (directory / "cert.pem").string();
    auto const key = (directory / "key.pem").string();
    auto const command =
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2 -subj /CN=bench "
        "-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout " +
        key + " -out " + certificate + " 2>/dev/null";
    if (std::system(command.c_str()) != 0) {  // NOLINT: the benchmark's own words
        throw std::runtime_error("openssl cannot make a certificate");
    }
    return {{"TSURUGI_REPLICATION_TLS_CERT", certificate},
            {"TSURUGI_REPLICATION_TLS_KEY", key},
            {"TSURUGI_REPLICATION_TLS_CA", certificate}};
}

}  // namespace

void runner::protection(std::vector<row>& rows) {
    auto const files = fresh_directory();
    fs::create_directories(files);
    std::map<std::string, variables> const ways{{"MAC", with_secret(files)}, {"TLS", with_tls(files)}};
    for (auto const& [name, given] : ways) {
        auto const run = [&](variables const& environment) {
            return replicated("strict", 1000, size_.replication_sessions, {}, environment);
        };
        auto const runs = compared(
            size_.replication_pairs, [&, &given = given] { return run(given); }, [&] { return run({}); });
        rows.push_back({"replication strict, 4 x 1000, " + name,
                        "MB/s over those without",
                        runs.ratio("mb_per_second"),
                        better::higher,
                        0.8,
                        0.9,
                        {{"mb_per_second", runs.first("mb_per_second")}}});
    }
    fs::remove_all(files);
}

}  // namespace bench
