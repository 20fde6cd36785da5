# The CUDA kernels, or the stub with the same face.  Included by ../../CMakeLists.txt.
set(WMF_CUDA AUTO CACHE STRING "CUDA kernels: ON, OFF, or AUTO (if there is an nvcc of CUDA 12 or newer)")
set_property(CACHE WMF_CUDA PROPERTY STRINGS AUTO ON OFF)
# Machine code for what is there, and PTX that later devices translate; 90a for its own instructions only.
set(WMF_CUDA_ARCHS "80;86;89;90a;90-virtual" CACHE STRING "What the CUDA kernels are compiled for")
option(WMF_PTXAS_VERBOSE "Print every kernel's registers and memory" OFF)
if(NOT WMF_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "WMF_CUDA: expected AUTO, ON or OFF, got '${WMF_CUDA}'")
endif()

set(wmf_has_cuda OFF)
if(NOT WMF_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  set(CMAKE_CUDA_ARCHITECTURES OFF)  # chosen below
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit 12.0)
    set(wmf_has_cuda ${CUDAToolkit_FOUND})
  endif()
  if(WMF_CUDA STREQUAL "ON" AND NOT wmf_has_cuda)
    message(FATAL_ERROR "WMF_CUDA is ON, but there is no working nvcc of CUDA 12 or newer; put it into PATH, "
      "or set CUDACXX to it")
  endif()
endif()

if(wmf_has_cuda)
  message(STATUS "CUDA kernels: built with ${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_COMPILER_VERSION}")
  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
  add_library(wmf_cuda OBJECT
    csrc/cuda/pack.cu
    csrc/cuda/mdn_rnn_step.cu
    csrc/cuda/mixture_sample.cu
    csrc/cuda/controller_forward.cu
    csrc/cuda/dream_rollout.cu
    csrc/cuda/peaks.cu)
  target_include_directories(wmf_cuda PRIVATE csrc)
  foreach(arch IN LISTS WMF_CUDA_ARCHS)
    if(arch MATCHES "^([0-9]+)-virtual$")
      target_compile_options(wmf_cuda PRIVATE
        -gencode=arch=compute_${CMAKE_MATCH_1},code=compute_${CMAKE_MATCH_1})
    else()
      target_compile_options(wmf_cuda PRIVATE -gencode=arch=compute_${arch},code=sm_${arch})
    endif()
  endforeach()
  # -fmad=false: as -ffp-contract=off for the CPU. Fused multiply-add is asked for where it is wanted.
  target_compile_options(wmf_cuda PRIVATE -fmad=false -Xcompiler=-Wall,-Wextra,-Wshadow
    $<$<BOOL:${WMF_PTXAS_VERBOSE}>:-Xptxas=-v>)
  if(WMF_WERROR)
    # Spilled registers are errors too, and so is any other memory of a thread's own.
    target_compile_options(wmf_cuda PRIVATE --Werror=all-warnings
      -Xptxas=--warn-on-spills,--warn-on-local-memory-usage,--warning-as-error)
  endif()
  target_sources(wmf_core PRIVATE $<TARGET_OBJECTS:wmf_cuda> csrc/cuda/device.cpp csrc/cuda/streams.cpp)
  # The runtime is part of the module, and none of it is seen from outside: torch brings its own. It loads the
  # driver when it is first asked for something, so the module is imported without one.
  target_link_libraries(wmf_core PRIVATE CUDA::cudart_static)
  target_link_options(wmf_core PRIVATE LINKER:--exclude-libs,ALL)
  set_target_properties(wmf_core PROPERTIES LINKER_LANGUAGE CXX)
else()
  message(STATUS "CUDA kernels: none (WMF_CUDA=${WMF_CUDA}, nvcc: ${CMAKE_CUDA_COMPILER})")
  target_sources(wmf_core PRIVATE csrc/cuda/no_cuda/run.cpp csrc/cuda/no_cuda/streams.cpp)
endif()
