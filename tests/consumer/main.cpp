// SPDX-License-Identifier: Apache-2.0
// Writes two entries, restarts and reads them: `consumer <directory>`, which must not exist.
#include <iostream>
#include <memory>
#include <string>

#include <limestone/status.h>

#include <limestone/api/datastore.h>
#include <limestone/api/limestone_exception.h>
#include <limestone/logging.h>

namespace {

void durable(std::uint64_t epoch) {
    std::cout << "durable: epoch " << epoch << '\n';
}

std::shared_ptr<limestone::api::datastore> open(std::string const& location) {
    limestone::api::configuration conf;
    conf.set_data_location(location);
    conf.set_recover_max_parallelism(4);
    return std::make_shared<limestone::api::datastore>(conf);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: " << argv[0] << " <directory>\n";
        return 2;
    }
    {
        auto datastore = open(argv[1]);
        datastore->add_persistent_callback(durable);
        auto& channel = datastore->create_channel();
        datastore->ready();
        datastore->switch_epoch(datastore->last_epoch() + 1);
        channel.begin_session();
        channel.add_entry(2, "k2", "v2", {1, 1});
        channel.add_entry(2, "k", "v", {1, 0});
        channel.end_session();
        datastore->switch_epoch(2);
        datastore->shutdown().wait();
    }
    auto datastore = open(argv[1]);
    datastore->ready();
    auto snapshot = datastore->get_snapshot();
    auto cursor = snapshot->get_cursor();
    std::string found;
    std::string text;
    while (cursor->next()) {
        cursor->key(text);
        found += text + '=';
        cursor->value(text);
        found += text + ' ';
    }
    std::cout << found << '\n';
    try {
        (void)datastore->acquire_blob_pool();
    } catch (limestone::api::limestone_exception const& e) {
        std::cout << "caught: " << e.what() << '\n';
    }
    return found == "k=v k2=v2 " ? 0 : 1;
}
