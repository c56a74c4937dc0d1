# SPDX-License-Identifier: Apache-2.0
# Installs the library, the headers, the tools with their man pages, the CMake package and the pkg-config files (public
# API, section 13).
include(CMakePackageConfigHelpers)

set(limestone_include_dir "${CMAKE_INSTALL_INCLUDEDIR}/limestone")
set(limestone_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/limestone")

install(
  TARGETS limestone limestone-api
  EXPORT limestone-targets
  RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT Runtime
  LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT Runtime
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}/limestone" COMPONENT Development)
install(FILES "${limestone_core_library}" DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT Runtime)
if(limestone_tgbackup)
  install(PROGRAMS "${limestone_tgbackup}" DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT Tools)
  limestone_man_pages(tgbackup "${limestone_tgbackup}")
endif()
if(limestone_tglogutil)
  install(PROGRAMS "${limestone_tglogutil}" DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT Tools)
  limestone_man_pages(tglogutil "${limestone_tglogutil}")
endif()
install(PROGRAMS "${PROJECT_SOURCE_DIR}/scripts/installed/tgcmpct_logs.sh"
                 "${PROJECT_SOURCE_DIR}/scripts/installed/tgdel_logs.sh" DESTINATION "${CMAKE_INSTALL_BINDIR}"
        COMPONENT Tools)
limestone_written_man_pages(tgcmpct_logs.sh tgdel_logs.sh)
if(limestone_tgreplica)
  install(PROGRAMS "${limestone_tgreplica}" DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT Tools)
  install(PROGRAMS "${PROJECT_SOURCE_DIR}/scripts/takeover.sh" DESTINATION "${CMAKE_INSTALL_BINDIR}"
          COMPONENT Tools RENAME tgreplica_takeover.sh)
  install(PROGRAMS "${PROJECT_SOURCE_DIR}/dist/pacemaker/limestone" DESTINATION lib/ocf/resource.d/tsurugi
          COMPONENT Tools)
  limestone_written_man_pages(tgreplica_takeover.sh)
  limestone_man_pages(tgreplica "${limestone_tgreplica}")
endif()

# Where systemd looks below every prefix that it knows.
install(DIRECTORY "${PROJECT_SOURCE_DIR}/dist/systemd/" DESTINATION lib/systemd/system COMPONENT Tools)

# Headers are used as <limestone/...>, and the directory to hand out is <prefix>/include/limestone.
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/limestone" DESTINATION "${limestone_include_dir}"
        COMPONENT Development FILES_MATCHING PATTERN "*.h")
install(FILES "${PROJECT_SOURCE_DIR}/include/limestone_core.h" DESTINATION "${limestone_include_dir}"
        COMPONENT Development)

install(EXPORT limestone-targets DESTINATION "${limestone_package_dir}" COMPONENT Development)
configure_file("${CMAKE_CURRENT_LIST_DIR}/limestone-config.cmake.in"
               "${PROJECT_BINARY_DIR}/package/limestone-config.cmake" @ONLY)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/package/limestone-config-version.cmake"
                                 COMPATIBILITY SameMajorVersion)
install(FILES "${PROJECT_BINARY_DIR}/package/limestone-config.cmake"
              "${PROJECT_BINARY_DIR}/package/limestone-config-version.cmake"
        DESTINATION "${limestone_package_dir}" COMPONENT Development)

# The prefix follows from the place of the file, so that an installation can be moved.
file(RELATIVE_PATH limestone_prefix_from_pc "/prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/prefix")
string(REGEX REPLACE "/$" "" limestone_prefix_from_pc "${limestone_prefix_from_pc}")
foreach(module limestone limestone_core)
  configure_file("${CMAKE_CURRENT_LIST_DIR}/${module}.pc.in" "${PROJECT_BINARY_DIR}/package/${module}.pc" @ONLY)
  install(FILES "${PROJECT_BINARY_DIR}/package/${module}.pc"
          DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig" COMPONENT Development)
endforeach()

# For people.
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" "${PROJECT_SOURCE_DIR}/README.md" DESTINATION "${CMAKE_INSTALL_DOCDIR}"
        COMPONENT Tools)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/docs" DESTINATION "${CMAKE_INSTALL_DOCDIR}" COMPONENT Tools
        FILES_MATCHING PATTERN "*.md")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/dist/prometheus" "${PROJECT_SOURCE_DIR}/dist/grafana"
        DESTINATION "${CMAKE_INSTALL_DATADIR}/limestone" COMPONENT Tools)

add_custom_target(
  uninstall
  COMMAND "${CMAKE_COMMAND}" "-DMANIFEST=${PROJECT_BINARY_DIR}/install_manifest.txt" -P
          "${CMAKE_CURRENT_LIST_DIR}/Uninstall.cmake"
  COMMENT "Removing what was installed from this build directory"
  VERBATIM)
