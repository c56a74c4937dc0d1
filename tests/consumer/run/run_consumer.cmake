# SPDX-License-Identifier: Apache-2.0
# Installs the build tree BUILD below WORK, then configures, builds and runs the project SOURCE against it.
set(prefix "${WORK}/installed")
set(build "${WORK}/build")
string(REPLACE ";" " " flags "${FLAGS}")
file(REMOVE_RECURSE "${prefix}" "${prefix}-moved" "${build}" "${WORK}/data")
file(MAKE_DIRECTORY "${WORK}/data")

function(run)
  message(STATUS "${ARGV}")
  execute_process(COMMAND ${ARGV} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

# The list of what somebody has installed for use is for removing that, and not this.
set(manifest "${BUILD}/install_manifest.txt")
if(EXISTS "${manifest}")
  file(COPY_FILE "${manifest}" "${manifest}.kept")
endif()
# What is removed again is gone, all of it.
run("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${prefix}-gone")
run("${CMAKE_COMMAND}" "-DMANIFEST=${manifest}" -P "${CMAKE_CURRENT_LIST_DIR}/../../../cmake/Uninstall.cmake")
file(GLOB_RECURSE left "${prefix}-gone/*")
if(left OR EXISTS "${prefix}-gone/include/limestone" OR EXISTS "${prefix}-gone/share/doc/limestone")
  message(FATAL_ERROR "left after the removal: ${left}")
endif()
file(REMOVE_RECURSE "${prefix}-gone")
run("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${prefix}")
file(REMOVE "${manifest}")
if(EXISTS "${manifest}.kept")
  file(RENAME "${manifest}.kept" "${manifest}")
endif()

# The layout of public API, section 13.1.
foreach(file include/limestone/limestone/status.h include/limestone/limestone/api/datastore.h
             include/limestone/limestone_core.h ${LIBDIR}/liblimestone.so ${LIBDIR}/liblimestone_core.so
             ${LIBDIR}/cmake/limestone/limestone-config.cmake ${LIBDIR}/cmake/limestone/limestone-config-version.cmake
             ${LIBDIR}/cmake/limestone/limestone-targets.cmake ${LIBDIR}/pkgconfig/limestone.pc
             ${LIBDIR}/pkgconfig/limestone_core.pc)
  if(NOT EXISTS "${prefix}/${file}")
    message(FATAL_ERROR "not installed: ${file}")
  endif()
endforeach()
if(IS_SYMLINK "${prefix}/${LIBDIR}/liblimestone.so")
  message(FATAL_ERROR "liblimestone.so is a symbolic link")
endif()

find_program(readelf readelf REQUIRED)
execute_process(COMMAND "${readelf}" -d "${prefix}/${LIBDIR}/liblimestone.so" OUTPUT_VARIABLE table
                COMMAND_ERROR_IS_FATAL ANY)
if(NOT table MATCHES "\\(NEEDED\\)[^\n]*\\[liblimestone_core\\.so\\]")
  message(FATAL_ERROR "liblimestone.so: expected to need liblimestone_core.so in\n${table}")
endif()
if(NOT table MATCHES "\\(RUNPATH\\)[^\n]*\\[\\$ORIGIN\\]")
  message(FATAL_ERROR "liblimestone.so: expected the run path $ORIGIN in\n${table}")
endif()

# An installation can be moved.
file(RENAME "${prefix}" "${prefix}-moved")
set(prefix "${prefix}-moved")
set(ENV{PKG_CONFIG_PATH} "${prefix}/${LIBDIR}/pkgconfig")
run("${CMAKE_COMMAND}" -S "${SOURCE}" -B "${build}" -G "${GENERATOR}" "-DCMAKE_PREFIX_PATH=${prefix}"
    "-DCMAKE_C_FLAGS=${flags}" "-DCMAKE_CXX_FLAGS=${flags}")
run("${CMAKE_COMMAND}" --build "${build}")
run("${build}/consumer" "${WORK}/data/by-package")
run("${build}/consumer_by_pkg_config" "${WORK}/data/by-pkg-config")
run("${build}/core_consumer_by_pkg_config")
