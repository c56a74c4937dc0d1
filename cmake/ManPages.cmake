# SPDX-License-Identifier: Apache-2.0
# Man pages: each tool writes its own, from the definition of its command line (`<tool> --generate_man <directory>`);
# those of scripts are in dist/man. Installed are compressed ones.
find_program(GZIP_EXECUTABLE gzip REQUIRED)

# limestone_man_pages(<tool> <program>) makes the man pages in <build>/man/<tool> whenever the program is newer, and
# installs them.
function(limestone_man_pages tool program)
  set(pages "${PROJECT_BINARY_DIR}/man/${tool}")
  set(stamp "${PROJECT_BINARY_DIR}/man/${tool}.stamp")
  file(MAKE_DIRECTORY "${PROJECT_BINARY_DIR}/man")
  add_custom_command(
    OUTPUT "${stamp}"
    COMMAND "${CMAKE_COMMAND}" -E rm -rf "${pages}"
    COMMAND "${CMAKE_COMMAND}" -E make_directory "${pages}"
    COMMAND "${program}" --generate_man "${pages}"
    COMMAND "${GZIP_EXECUTABLE}" -9nkrf "${pages}"
    COMMAND "${CMAKE_COMMAND}" -E touch "${stamp}"
    DEPENDS "${program}"
    COMMENT "Writing the man pages of ${tool}"
    VERBATIM)
  add_custom_target(${tool}_man_pages ALL DEPENDS "${stamp}")
  if(TARGET limestone_core_build)
    add_dependencies(${tool}_man_pages limestone_core_build)
  endif()
  install(DIRECTORY "${pages}/" DESTINATION "${CMAKE_INSTALL_MANDIR}/man1" COMPONENT Tools
          FILES_MATCHING PATTERN "*.1.gz")
endfunction()

# limestone_written_man_pages(<script>...) installs the pages that are written by hand.
function(limestone_written_man_pages)
  foreach(script IN LISTS ARGN)
    set(page "${PROJECT_BINARY_DIR}/man/${script}.1")
    configure_file("${PROJECT_SOURCE_DIR}/dist/man/${script}.1" "${page}" COPYONLY)
    execute_process(COMMAND "${GZIP_EXECUTABLE}" -9nkf "${page}" COMMAND_ERROR_IS_FATAL ANY)
    install(FILES "${page}.gz" DESTINATION "${CMAKE_INSTALL_MANDIR}/man1" COMPONENT Tools)
  endforeach()
endfunction()
