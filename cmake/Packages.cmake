# SPDX-License-Identifier: Apache-2.0
# Packages for Debian: `cpack -G DEB` in the build directory. The libraries, the tools with their units and pages, and
# what programs are built with; debug information is put into packages of its own beside them.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME limestone)
set(CPACK_PACKAGE_VENDOR "the limestone maintainers")
set(LIMESTONE_PACKAGE_CONTACT "Limestone Maintainers <maintainers@limestone.internal>" CACHE STRING
    "who is named as the maintainer of packages")
set(CPACK_PACKAGE_CONTACT "${LIMESTONE_PACKAGE_CONTACT}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_RESOURCE_FILE_LICENSE "${PROJECT_SOURCE_DIR}/LICENSE")
set(CPACK_COMPONENTS_ALL Runtime Tools Development)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_DEBUGINFO_PACKAGE ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)

set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME liblimestone)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_CONTROL_EXTRA "${PROJECT_SOURCE_DIR}/dist/debian/triggers")
set(CPACK_COMPONENT_RUNTIME_DESCRIPTION
    "durable transaction log of the Tsurugi engine, libraries
 A parallel write-ahead log with group commit by epoch, recovery, online
 compaction, backup and replication to a hot standby.")

set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME limestone-tools)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION database)
set(CPACK_DEBIAN_TOOLS_PACKAGE_DEPENDS adduser)
set(CPACK_DEBIAN_TOOLS_PACKAGE_CONTROL_EXTRA "${PROJECT_SOURCE_DIR}/dist/debian/postinst"
                                             "${PROJECT_SOURCE_DIR}/dist/debian/postrm")
set(CPACK_COMPONENT_TOOLS_DESCRIPTION
    "durable transaction log of the Tsurugi engine, tools
 Looks at data directories, repairs and compacts them, and serves a replica.")

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME liblimestone-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS
    "liblimestone (= ${PROJECT_VERSION}), libboost-filesystem-dev, libgoogle-glog-dev")
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION
    "durable transaction log of the Tsurugi engine, headers
 Headers in C++ and C, and the files for CMake and pkg-config.")

# Only programs and libraries of this project and of the system are looked at for dependencies.
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_DEVELOPMENT_DEBUGINFO_PACKAGE OFF)

# What Debian wants of each package.
foreach(component Runtime Tools Development)
  string(TOUPPER "${component}" upper)
  set(doc "share/doc/${CPACK_DEBIAN_${upper}_PACKAGE_NAME}")
  install(FILES "${PROJECT_SOURCE_DIR}/dist/debian/copyright" DESTINATION "${doc}" COMPONENT ${component})
  install(FILES "${PROJECT_BINARY_DIR}/package/changelog.gz" DESTINATION "${doc}" COMPONENT ${component})
endforeach()
configure_file("${PROJECT_SOURCE_DIR}/dist/debian/changelog.in" "${PROJECT_BINARY_DIR}/package/changelog" @ONLY)
execute_process(COMMAND "${GZIP_EXECUTABLE}" -9nkf "${PROJECT_BINARY_DIR}/package/changelog"
                COMMAND_ERROR_IS_FATAL ANY)
include(CPack)
