/* SPDX-License-Identifier: Apache-2.0 */
/* Links the C interface alone. */
#include <stdio.h>

#include <limestone_core.h>

int main(void) {
    printf("limestone_core %s\n", limestone_version());
    return limestone_datastore_ready(NULL) == LIMESTONE_ERR_INVALID_HANDLE ? 0 : 1;
}
