// SPDX-License-Identifier: Apache-2.0
#include "acknowledgements.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <utility>

namespace mini_engine {

acknowledgement_writer::acknowledgement_writer(std::string path)
    : path_(std::move(path)), descriptor_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) {
    if (descriptor_ < 0) {
        throw std::runtime_error("cannot open " + path_ + ": " + std::strerror(errno));
    }
}

acknowledgement_writer::~acknowledgement_writer() {
    ::close(descriptor_);
}

void acknowledgement_writer::write(std::uint64_t worker, std::uint64_t sequence, std::uint64_t epoch) {
    auto const line = std::to_string(worker) + ' ' + std::to_string(sequence) + ' ' + std::to_string(epoch) + '\n';
    auto const written = ::write(descriptor_, line.data(), line.size());
    if (written != static_cast<ssize_t>(line.size())) {
        throw std::runtime_error("cannot write to " + path_ + ": " + std::strerror(errno));
    }
}

std::map<std::uint64_t, std::uint64_t> read_acknowledgements(std::string const& path) {
    std::map<std::uint64_t, std::uint64_t> highest;
    std::ifstream file(path);
    std::string line;
    // getline sets eof when the newline is missing: an unfinished line.
    while (std::getline(file, line) && !file.eof()) {
        std::istringstream fields(line);
        std::uint64_t worker = 0;
        std::uint64_t sequence = 0;
        std::uint64_t epoch = 0;
        if (!(fields >> worker >> sequence >> epoch)) {
            throw std::runtime_error(path + ": expected `<worker> <sequence> <epoch>`, found `" + line + "`");
        }
        auto& entry = highest[worker];
        entry = std::max(entry, sequence);
    }
    return highest;
}

}  // namespace mini_engine
