# SPDX-License-Identifier: Apache-2.0
# Fails unless the man page of a tool names every subcommand that the tool itself names in its usage line, and each
# subcommand has a page with its options and exit codes. TOOL is the program, PAGES the directory of its pages.
cmake_minimum_required(VERSION 3.20)

get_filename_component(name "${TOOL}" NAME)
execute_process(COMMAND "${TOOL}" OUTPUT_VARIABLE usage ERROR_QUIET)
if(NOT usage MATCHES "{([^}]+)}")
  message(FATAL_ERROR "no list of subcommands in: ${usage}")
endif()
string(REPLACE " | " ";" subcommands "${CMAKE_MATCH_1}")

# read_page(<variable> <name>): the page with plain hyphens.
function(read_page variable page)
  if(NOT EXISTS "${PAGES}/${page}.1")
    message(FATAL_ERROR "${PAGES}/${page}.1 is missing")
  endif()
  file(READ "${PAGES}/${page}.1" text)
  string(REPLACE "\\-" "-" text "${text}")
  set(${variable} "${text}" PARENT_SCOPE)
endfunction()

function(expect text part where)
  string(FIND "${text}" "${part}" place)
  if(place EQUAL -1)
    message(FATAL_ERROR "the man page ${where} does not mention `${part}`")
  endif()
endfunction()

read_page(whole "${name}")
foreach(subcommand ${subcommands})
  expect("${whole}" "${name}-${subcommand}(1)" "${name}(1)")
  read_page(page "${name}-${subcommand}")
  expect("${page}" "--thread_num" "${name}-${subcommand}(1)")
  expect("${page}" "Exit codes:" "${name}-${subcommand}(1)")
endforeach()
list(LENGTH subcommands count)
message(STATUS "${name}: ${count} subcommands")
