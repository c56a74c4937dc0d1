# SPDX-License-Identifier: Apache-2.0
# Fails unless LIBRARY and CORE carry the names under which programs load them. READELF is the program to ask.
function(expect file text)
  execute_process(COMMAND "${READELF}" -d "${file}" OUTPUT_VARIABLE table COMMAND_ERROR_IS_FATAL ANY)
  if(NOT table MATCHES "${text}")
    message(FATAL_ERROR "${file}: expected ${text} in\n${table}")
  endif()
endfunction()

expect("${LIBRARY}" "\\(SONAME\\)[^\n]*\\[liblimestone\\.so\\]")
expect("${LIBRARY}" "\\(NEEDED\\)[^\n]*\\[liblimestone_core\\.so\\]")
expect("${CORE}" "\\(SONAME\\)[^\n]*\\[liblimestone_core\\.so\\]")
