# SPDX-License-Identifier: Apache-2.0
# limestone_compile_options(<target>): the warnings of this project for one target, instrumentation for all of them.

set(limestone_instrumentation "")
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
  if(ENABLE_SANITIZER)
    list(APPEND limestone_instrumentation -fsanitize=address)
  endif()
  if(ENABLE_UB_SANITIZER)
    list(APPEND limestone_instrumentation -fsanitize=undefined -fno-sanitize-recover=undefined)
  endif()
  if(ENABLE_COVERAGE)
    list(APPEND limestone_instrumentation --coverage)
  endif()
endif()
if(limestone_instrumentation)
  # For the whole build: a program must be instrumented like the library that it loads.
  add_compile_options(${limestone_instrumentation} -fno-omit-frame-pointer)
  add_link_options(${limestone_instrumentation})
endif()

function(limestone_compile_options target)
  target_compile_options(${target} PRIVATE -Wall -Wextra)
  if(BUILD_STRICT)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()
