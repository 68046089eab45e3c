/*
 * tests/support/sanitized.h - whether this build is watched by a sanitizer or run by an emulator,
 * where everything takes ten to forty times as long: tests that only repeat themselves over many
 * rooms, seconds or sizes do so less often there. The release build always does the whole.
 */
#ifndef PARLEY_TESTS_SUPPORT_SANITIZED_H
#define PARLEY_TESTS_SUPPORT_SANITIZED_H

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || defined(PARLEY_EMULATED)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

#endif
