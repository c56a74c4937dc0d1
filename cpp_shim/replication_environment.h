// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace limestone::internal {

/**
 * Logs what the environment says about replication (public API, sections 15.3 and 17).
 * @throws api::limestone_exception of kind `initialization_failure` when it asks for replication, which this version
 *     does not have: going on without would acknowledge what no replica holds
 */
void check_replication_environment();

}  // namespace limestone::internal
