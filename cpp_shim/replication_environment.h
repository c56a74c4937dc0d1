// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace limestone::internal {

/// Logs what the environment says about replication (public API, sections 15.3 and 17), when it is understood.
void log_replication_environment();

}  // namespace limestone::internal
