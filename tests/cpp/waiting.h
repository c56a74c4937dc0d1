// SPDX-License-Identifier: Apache-2.0
// Epochs complete, and are told, on a thread of the library soon after the call that lets them, unless commits are
// direct: a test waits for what it expects.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace limestone::testing {

/// Whether what `get` returns comes to equal `expected` before a time has passed that no machine needs.
template <class T, class Get>
::testing::AssertionResult becomes(T const& expected, Get get) {
    auto const deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    auto found = get();
    while (!(found == expected)) {
        if (std::chrono::steady_clock::now() > deadline) {
            return ::testing::AssertionFailure() << "it is still " << ::testing::PrintToString(found) << " and not "
                                                 << ::testing::PrintToString(expected);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        found = get();
    }
    return ::testing::AssertionSuccess();
}

/// What a function was told on whatever thread, in this order.
template <class T>
class told {
public:
    void add(T value) {
        std::lock_guard<std::mutex> lock(mutex_);
        all_.push_back(std::move(value));
    }

    [[nodiscard]] std::vector<T> all() const {
        std::lock_guard<std::mutex> lock(mutex_);
        return all_;
    }

    /// Whether it comes to be exactly this.
    [[nodiscard]] ::testing::AssertionResult becomes(std::vector<T> const& expected) const {
        return testing::becomes(expected, [this] { return all(); });
    }

private:
    mutable std::mutex mutex_{};
    std::vector<T> all_{};
};

}  // namespace limestone::testing
