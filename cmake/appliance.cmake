# cmake/appliance.cmake - the service parleyd, what is installed and where, the Debian package.

pkg_check_modules(INIH REQUIRED IMPORTED_TARGET inih)
pkg_check_modules(SYSTEMD REQUIRED IMPORTED_TARGET libsystemd)
pkg_check_modules(EVDEV REQUIRED IMPORTED_TARGET libevdev)
pkg_check_modules(ARCHIVE REQUIRED IMPORTED_TARGET libarchive)
pkg_check_modules(NETTLE REQUIRED IMPORTED_TARGET nettle)
target_link_libraries(parley_daemon PUBLIC PkgConfig::INIH PkgConfig::SYSTEMD PkgConfig::EVDEV
                      PkgConfig::ARCHIVE PkgConfig::NETTLE)

# Programs in the build folder find there what installed ones find in PREFIX/share/parley.
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/share)
file(CREATE_LINK ${CMAKE_SOURCE_DIR}/models ${CMAKE_BINARY_DIR}/share/parley SYMBOLIC)

add_executable(parleyd daemon/parleyd.c)
target_link_libraries(parleyd PRIVATE parley_daemon)
