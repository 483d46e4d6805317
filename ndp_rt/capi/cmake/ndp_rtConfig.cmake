# find_package(ndp_rt): the imported target ndp_rt::ndp_rt, for C and C++.
# Found with -Dndp_rt_DIR="$(ndp-rt capi --cmake-dir)", or with that folder in CMAKE_PREFIX_PATH.

get_filename_component(_ndp_rt_folder "${CMAKE_CURRENT_LIST_DIR}/.." ABSOLUTE)

if(NOT EXISTS "${_ndp_rt_folder}/libndp_rt.so" OR NOT EXISTS "${_ndp_rt_folder}/libndp_rt.so.1")
  set(ndp_rt_FOUND FALSE)
  set(ndp_rt_NOT_FOUND_MESSAGE "${_ndp_rt_folder}/libndp_rt.so is not built. Run: ndp-rt capi build")
elseif(NOT TARGET ndp_rt::ndp_rt)
  add_library(ndp_rt::ndp_rt SHARED IMPORTED)
  set_target_properties(
    ndp_rt::ndp_rt
    PROPERTIES
      IMPORTED_LOCATION "${_ndp_rt_folder}/libndp_rt.so"
      IMPORTED_SONAME "libndp_rt.so.1"
      INTERFACE_INCLUDE_DIRECTORIES "${_ndp_rt_folder}/include"
      # As --libs and pkg-config: a program finds the library where it is. CMake's own path goes when it is installed.
      INTERFACE_LINK_OPTIONS "LINKER:-rpath,${_ndp_rt_folder}"
  )
endif()

unset(_ndp_rt_folder)
