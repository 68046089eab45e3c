/*
 * daemon/installed.h - where what comes with the program lies: the detector's weights, the small
 * model.
 *
 * Found from where the program itself is, so that an installed tree may be moved: PREFIX/bin/parley
 * looks in PREFIX/share/parley, a program in a build folder in the folder's share/parley, which
 * CMake links to the source's models/.
 */
#ifndef PARLEY_DAEMON_INSTALLED_H
#define PARLEY_DAEMON_INSTALLED_H

#include <stddef.h>

#include "base/problem.h"

#define INSTALLED_VAD "vad/silero.bin"

/* The path of `name` ("vad/silero.bin"). 0, or -ENOENT and a sentence with the places looked at. */
int installed_path(char *path, size_t size, const char *name, struct problems *why);

#endif
