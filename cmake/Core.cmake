# SPDX-License-Identifier: Apache-2.0
# The target `limestone_core`: the core, which cargo builds, as an imported library. One call builds the tools as well.

set(LIMESTONE_CORE_LIBRARY "" CACHE FILEPATH "a liblimestone_core.so to use instead of building one with cargo")
set(LIMESTONE_TGBACKUP "" CACHE FILEPATH "the tgbackup that goes with it; none is installed without")
set(LIMESTONE_TGLOGUTIL "" CACHE FILEPATH "the tglogutil that goes with it; none is installed without")
set(LIMESTONE_TGREPLICA "" CACHE FILEPATH "the tgreplica that goes with it; none is installed without")
set(LIMESTONE_CARGO_TARGET_DIR "${CMAKE_CURRENT_SOURCE_DIR}/target" CACHE PATH "where cargo builds")
set(limestone_core_include_dir "${CMAKE_CURRENT_SOURCE_DIR}/include")

add_library(limestone_core SHARED IMPORTED GLOBAL)

if(LIMESTONE_CORE_LIBRARY)
  set(limestone_core_library "${LIMESTONE_CORE_LIBRARY}")
  set(limestone_tgbackup "${LIMESTONE_TGBACKUP}")
  set(limestone_tglogutil "${LIMESTONE_TGLOGUTIL}")
  set(limestone_tgreplica "${LIMESTONE_TGREPLICA}")
else()
  find_program(CARGO_EXECUTABLE cargo HINTS "$ENV{HOME}/.cargo/bin" REQUIRED)
  if(CMAKE_BUILD_TYPE STREQUAL "Debug")
    set(cargo_profile dev)
    set(cargo_profile_dir debug)
  else()
    set(cargo_profile release)
    set(cargo_profile_dir release)
  endif()
  set(limestone_core_library "${LIMESTONE_CARGO_TARGET_DIR}/${cargo_profile_dir}/liblimestone_core.so")
  set(limestone_tgbackup "${LIMESTONE_CARGO_TARGET_DIR}/${cargo_profile_dir}/tgbackup")
  set(limestone_tglogutil "${LIMESTONE_CARGO_TARGET_DIR}/${cargo_profile_dir}/tglogutil")
  set(limestone_tgreplica "${LIMESTONE_CARGO_TARGET_DIR}/${cargo_profile_dir}/tgreplica")
  # Cargo itself knows what is out of date, so it is asked in every build. The job server of make does not reach it and
  # would only make it warn.
  add_custom_target(
    limestone_core_build ALL
    COMMAND "${CMAKE_COMMAND}" -E env --unset=MAKEFLAGS --unset=MFLAGS "${CARGO_EXECUTABLE}" build --locked --lib --bin tgbackup --bin tglogutil --bin tgreplica --profile ${cargo_profile}
            --manifest-path "${CMAKE_CURRENT_SOURCE_DIR}/Cargo.toml" --target-dir "${LIMESTONE_CARGO_TARGET_DIR}"
    BYPRODUCTS "${limestone_core_library}" "${limestone_tgbackup}" "${limestone_tglogutil}" "${limestone_tgreplica}"
    WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}"
    COMMENT "Building the core with cargo (${cargo_profile})"
    USES_TERMINAL VERBATIM)
  add_dependencies(limestone_core limestone_core_build)
endif()

set_target_properties(
  limestone_core
  PROPERTIES IMPORTED_LOCATION "${limestone_core_library}"
             # Linked by its name and not by its path, whether it carries one or not.
             IMPORTED_NO_SONAME ON
             INTERFACE_INCLUDE_DIRECTORIES "${limestone_core_include_dir}")
