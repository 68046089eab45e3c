# cmake/appliance.cmake - the service parleyd, what is installed and where, the Debian package.

pkg_check_modules(INIH REQUIRED IMPORTED_TARGET inih)
pkg_check_modules(SYSTEMD REQUIRED IMPORTED_TARGET libsystemd)
target_link_libraries(parley_daemon PUBLIC PkgConfig::INIH PkgConfig::SYSTEMD)
