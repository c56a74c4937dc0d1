// SPDX-License-Identifier: Apache-2.0
#include "verify.h"

#include <limestone/api/cursor.h>
#include <limestone/api/datastore.h>
#include <limestone/api/snapshot.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "acknowledgements.h"
#include "engine.h"
#include "records.h"

namespace mini_engine {

namespace {

using visitor = std::function<void(limestone::api::storage_id_type, std::string const&, std::string const&)>;

// Recovers a directory, hands every entry to `visit` and returns the last epoch.
limestone::api::epoch_id_type recover(std::string const& directory, visitor const& visit) {
    if (!std::filesystem::is_directory(directory)) {
        throw std::runtime_error("not a directory: " + directory);  // the datastore would create it
    }
    limestone::api::datastore datastore(make_configuration(directory));
    datastore.recover();
    datastore.ready();
    {
        auto const snapshot = datastore.get_snapshot();
        auto const cursor = snapshot->get_cursor();
        std::string key;
        std::string value;
        while (cursor->next()) {
            cursor->key(key);
            cursor->value(value);
            visit(cursor->storage(), key, value);
        }
    }
    auto const last_epoch = datastore.last_epoch();
    datastore.shutdown().get();
    return last_epoch;
}

class verifier {
public:
    explicit verifier(std::ostream& report) : report_(report) {}

    void take(limestone::api::storage_id_type storage, std::string const& key, std::string const& value) {
        if (storage == records_storage) {
            ++result_.recovered;
            if (auto const id = parse_record(key, value)) {
                records_[id->worker].push_back(*id);
                return;
            }
        } else if (storage == newest_storage || storage == oldest_storage) {
            auto const worker = parse_number(key);
            auto const sequence = parse_number(value);
            if (worker && sequence) {
                (storage == newest_storage ? newest_ : oldest_)[*worker] = *sequence;
                return;
            }
        }
        complain("wrong entry: storage " + std::to_string(storage) + ", key `" + key + "`, value `" + value + "`");
        ++result_.wrong_entries;
    }

    verify_result finish(std::map<std::uint64_t, std::uint64_t> const& acknowledged) {
        for (auto const& entry : newest_) {
            records_[entry.first];  // so that a worker without any record is checked, too
        }
        for (auto& [worker, records] : records_) {
            std::sort(records.begin(), records.end(),
                      [](record_id const& a, record_id const& b) { return a.sequence < b.sequence; });
            check_sessions(worker, records);
        }
        for (auto const& [worker, highest] : acknowledged) {
            check_acknowledged(worker, highest, records_[worker]);
        }
        return result_;
    }

private:
    // The records of a worker must be whole sessions, and its newest key must name the last of them: both come out of
    // the same session.
    void check_sessions(std::uint64_t worker, std::vector<record_id> const& records) {
        for (std::size_t i = 0; i < records.size();) {
            auto const& first = records[i];
            std::size_t found = 0;
            while (i < records.size() && records[i].session_first == first.session_first) {
                ++found;
                ++i;
            }
            if (found != first.session_size) {
                complain("half session: worker " + std::to_string(worker) + ", sequence " +
                         std::to_string(first.session_first) + ": " + std::to_string(found) + " of " +
                         std::to_string(first.session_size) + " records");
                ++result_.half_sessions;
            }
        }
        auto const entry = newest_.find(worker);
        auto const named = entry == newest_.end() ? "none" : std::to_string(entry->second);
        auto const found = records.empty() ? "none" : std::to_string(records.back().sequence);
        if (named != found) {
            complain("worker " + std::to_string(worker) + ": its newest record is " + found + ", its entry names " +
                     named);
            ++result_.half_sessions;
        }
        auto const oldest = oldest_of(worker);
        if (!records.empty() && records.front().sequence < oldest) {
            complain("worker " + std::to_string(worker) + ": record " + std::to_string(records.front().sequence) +
                     " is there again, all before " + std::to_string(oldest) + " were removed");
            ++result_.wrong_entries;
        }
    }

    // What a worker has removed is not lost: its own entry, out of the same session, says how far that goes.
    std::uint64_t oldest_of(std::uint64_t worker) const {
        auto const entry = oldest_.find(worker);
        return entry == oldest_.end() ? 0 : entry->second;
    }

    void check_acknowledged(std::uint64_t worker, std::uint64_t highest, std::vector<record_id> const& records) {
        result_.acknowledged += highest + 1;
        auto const removed = std::min(oldest_of(worker), highest + 1);
        auto const end = std::upper_bound(records.begin(), records.end(), highest,
                                          [](std::uint64_t value, record_id const& id) { return value < id.sequence; });
        // Keys are unique, so a count says whether each that is not removed is there.
        auto const present = static_cast<std::uint64_t>(end - records.begin()) + removed;
        if (present != highest + 1) {
            complain("worker " + std::to_string(worker) + ": " + std::to_string(highest + 1) +
                     " records acknowledged, " + std::to_string(present) + " of them recovered or removed");
            result_.lost += highest + 1 - std::min(present, highest + 1);
        }
    }

    void complain(std::string const& text) {
        constexpr int complaints_max = 10;
        if (complaints_ < complaints_max) {
            report_ << text << '\n';
        }
        ++complaints_;
    }

    std::ostream& report_;
    verify_result result_;
    int complaints_ = 0;
    std::map<std::uint64_t, std::vector<record_id>> records_;
    std::map<std::uint64_t, std::uint64_t> newest_;
    std::map<std::uint64_t, std::uint64_t> oldest_;
};

// Printable ASCII as it is, everything else as \xNN.
std::string printable(std::string_view bytes) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    for (char const byte : bytes) {
        auto const code = static_cast<unsigned char>(byte);
        if (code >= 0x20U && code < 0x7fU && byte != '\\') {
            text += byte;
        } else {
            text += "\\x";
            text += digits[code >> 4U];
            text += digits[code & 0xfU];
        }
    }
    return text;
}

}  // namespace

verify_result verify(std::string const& directory, std::string const& acknowledgement_file, std::ostream& report) {
    auto const acknowledged = read_acknowledgements(acknowledgement_file);
    verifier verifier(report);
    recover(directory, [&](auto storage, auto const& key, auto const& value) { verifier.take(storage, key, value); });
    return verifier.finish(acknowledged);
}

std::uint64_t print_entries(std::string const& directory, std::ostream& out) {
    std::uint64_t entries = 0;
    auto const last_epoch = recover(directory, [&](auto storage, auto const& key, auto const& value) {
        out << "storage " << storage << "  key " << printable(key) << "  value " << printable(value) << '\n';
        ++entries;
    });
    out << entries << " entries, last epoch " << last_epoch << '\n';
    return entries;
}

}  // namespace mini_engine
