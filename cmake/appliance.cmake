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

# What is installed. (The preset's prefix is /usr: an appliance is a system of its own.)
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON) # tests are not built for a package
include(GNUInstallDirs)
set(PARLEY_SHARE ${CMAKE_INSTALL_FULL_DATADIR}/parley)
set(etc ${CMAKE_SOURCE_DIR}/etc)
set(made ${CMAKE_BINARY_DIR}/installed)

install(TARGETS parley parleyd DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES ${etc}/parley.conf DESTINATION ${CMAKE_INSTALL_FULL_SYSCONFDIR}/parley)
install(FILES ${CMAKE_SOURCE_DIR}/models/vad/silero.bin ${CMAKE_SOURCE_DIR}/models/vad/LICENSE
        DESTINATION ${PARLEY_SHARE}/vad)
install(FILES ${etc}/systemd/gpu.conf DESTINATION ${PARLEY_SHARE})
install(FILES ${etc}/parley.bash RENAME parley
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(CODE "file(CREATE_LINK parley
  \$ENV{DESTDIR}${CMAKE_INSTALL_FULL_DATADIR}/bash-completion/completions/parleyd SYMBOLIC)")

# The small model, with the sums that `parley model verify` compares.
file(GLOB files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/models/parley-mini/*)
set(sums "")
foreach(file ${files})
  file(REAL_PATH ${file} real)
  get_filename_component(name ${file} NAME)
  install(FILES ${real} RENAME ${name} DESTINATION ${PARLEY_SHARE}/parley-mini
          PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
  file(SHA256 ${real} sum)
  string(APPEND sums "${sum}  ${name}\n")
endforeach()
file(WRITE ${made}/SHA256SUMS "${sums}")
install(FILES ${made}/SHA256SUMS DESTINATION ${PARLEY_SHARE}/parley-mini)

# Units and what goes with them say where the programs really are.
file(READ ${etc}/systemd/parleyd.service text)
string(REPLACE /usr/bin/ ${CMAKE_INSTALL_FULL_BINDIR}/ text "${text}")
string(REPLACE /usr/share/parley ${PARLEY_SHARE} text "${text}")
string(REPLACE /etc/parley ${CMAKE_INSTALL_FULL_SYSCONFDIR}/parley text "${text}")
file(WRITE ${made}/parleyd.service "${text}")
configure_file(${etc}/systemd/tmpfiles.conf ${made}/tmpfiles.conf @ONLY)
set(lib ${CMAKE_INSTALL_PREFIX}/lib)
install(FILES ${made}/parleyd.service ${etc}/systemd/parleyd.socket
        DESTINATION ${lib}/systemd/system)
install(FILES ${made}/tmpfiles.conf RENAME parley.conf DESTINATION ${lib}/tmpfiles.d)
install(FILES ${etc}/systemd/sysusers.conf RENAME parley.conf DESTINATION ${lib}/sysusers.d)

# parley_gzip(source made-name destination): without time and name, so that packages are equal.
function(parley_gzip source name destination)
  configure_file(${source} ${made}/${name} @ONLY)
  execute_process(COMMAND gzip -9n INPUT_FILE ${made}/${name} OUTPUT_FILE ${made}/${name}.gz
                  COMMAND_ERROR_IS_FATAL ANY)
  install(FILES ${made}/${name}.gz DESTINATION ${destination})
endfunction()

set(VERSION ${PROJECT_VERSION})
foreach(page parley.1 parleyd.8 parley.conf.5 parley-control.7)
  string(REGEX MATCH "[0-9]$" section ${page})
  parley_gzip(${etc}/man/${page} ${page} ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()
parley_gzip(${etc}/deb/changelog changelog ${CMAKE_INSTALL_DOCDIR})
install(FILES ${etc}/deb/copyright README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

# The Debian package: `make deb`.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME parley)
set(CPACK_PACKAGE_CONTACT "The Parley developers <parley@parley.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "voice assistant that listens, thinks and speaks")
set(CPACK_PACKAGE_DESCRIPTION_FILE ${etc}/deb/description)
set(CPACK_PACKAGE_FILE_NAME parley_${PROJECT_VERSION})
set(CPACK_PACKAGING_INSTALL_PREFIX ${CMAKE_INSTALL_PREFIX})
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR})
set(CPACK_SET_DESTDIR ON)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION sound)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "systemd | systemd-standalone-sysusers")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "alsa-utils")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
file(WRITE ${made}/conffiles "${CMAKE_INSTALL_FULL_SYSCONFDIR}/parley/parley.conf\n")
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${made}/conffiles ${etc}/deb/postinst ${etc}/deb/prerm
                                       ${etc}/deb/postrm)
include(CPack)
