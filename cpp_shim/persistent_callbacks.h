// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include <limestone/api/durability.h>
#include <limestone/api/epoch_id_type.h>
#include <limestone_core.h>

namespace limestone::api {

/**
 * The functions that are told about durable epochs.
 *
 * This object is registered with the core for the whole life of the datastore. A change of the functions swaps an
 * immutable set of them; then registering again waits, in the core, for a call that still uses the old set. A function
 * may make the change itself: the core does not wait for its own caller, and the running call holds its set.
 */
class persistent_callbacks {
public:
    using epoch_function = std::function<void(epoch_id_type)>;
    using durability_function = std::function<void(epoch_id_type, durability)>;

    /**
     * Registers with the core.
     * @param observer called with each epoch before the functions
     * @return status of the core
     */
    [[nodiscard]] std::int32_t attach(limestone_datastore* core, std::function<void()> observer) noexcept;

    /// Replaces the function that is told epochs at the notify level; the old one is not running any more on return.
    void set_epoch_function(epoch_function function) noexcept;

    /// Replaces the function that is told epochs with their state; the old one is not running any more on return.
    void set_durability_function(durability_function function) noexcept;

    /// Removes both; none is running any more on return.
    void clear() noexcept;

private:
    struct functions {
        epoch_function on_epoch{};
        durability_function on_durability{};
    };

    limestone_datastore* core_{nullptr};
    std::function<void()> observer_{};
    std::mutex mutex_{};
    std::shared_ptr<functions const> functions_{std::make_shared<functions const>()};

    std::shared_ptr<functions const> exchange(std::function<void(functions&)> const& change);
    void await_running_call() noexcept;
    std::shared_ptr<functions const> current();
    std::int32_t attach() noexcept;
    template <class Body>
    void run(Body&& body) noexcept;
    static void reached(void* context, std::uint64_t epoch, std::int32_t state) noexcept;
    static void notified(void* context, std::uint64_t epoch) noexcept;
};

}  // namespace limestone::api
