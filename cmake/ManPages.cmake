# SPDX-License-Identifier: Apache-2.0
# Man pages: each tool writes its own, from the definition of its command line (`<tool> --generate_man <directory>`).

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
    COMMAND "${CMAKE_COMMAND}" -E touch "${stamp}"
    DEPENDS "${program}"
    COMMENT "Writing the man pages of ${tool}"
    VERBATIM)
  add_custom_target(${tool}_man_pages ALL DEPENDS "${stamp}")
  if(TARGET limestone_core_build)
    add_dependencies(${tool}_man_pages limestone_core_build)
  endif()
  install(DIRECTORY "${pages}/" DESTINATION "${CMAKE_INSTALL_MANDIR}/man1" COMPONENT Runtime
          FILES_MATCHING PATTERN "*.1")
endfunction()
