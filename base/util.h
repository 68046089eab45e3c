/* base/util.h - the few helpers that every folder wants. */
#ifndef PARLEY_BASE_UTIL_H
#define PARLEY_BASE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* A function whose loops are compiled for wider vectors as well; the processor chooses when the
 * program is loaded. Sums keep their order, so its results are the same everywhere. (Sanitizers are
 * not yet there when the choice is made.) */
#if defined(__x86_64__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) &&                \
    !defined(__SANITIZE_THREAD__)
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE
#endif

static inline int min_int(int a, int b)
{
    return a < b ? a : b;
}

static inline int max_int(int a, int b)
{
    return a > b ? a : b;
}

static inline size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* a * b, or false when the product does not fit. */
static inline bool mul_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool is_silence(const float *x, size_t n)
{
    int sounding = 0;
    for (size_t i = 0; i < n; i++)
        sounding |= x[i] != 0.0f;
    return sounding == 0;
}

/* Periods of silence in a row, up to `most`, of which x[n] is the newest. */
static inline int count_silence(int periods, int most, const float *x, size_t n)
{
    return is_silence(x, n) ? min_int(periods + 1, most) : 0;
}

/* The number of `word` among "a|b|c", or -1. */
int find_word(const char *words, const char *word);

/* For qsort and doubles that are no NaN: the least first. */
int by_double(const void *a, const void *b);

/* Grows `*array` (elements of `size` bytes, `*cap` of them) to hold at least `need`; the new part
 * is not initialised. 0 or -ENOMEM, in which case nothing has changed. */
int grow_array(void *array, size_t *cap, size_t need, size_t size);

/* A whole file in memory with a closing NUL that is not counted. `max` bounds what is read.
 * 0, -EFBIG, or the errno of the failing call. Caller frees. */
int read_file(char **text, size_t *len, const char *path, size_t max);

/* Large blocks get pages of their own, which go back to the system when freed: months of turns of
 * differing length would otherwise leave holes in the heap, and memory would follow the worst day.
 * To be called first in main; does nothing where the C library has no such setting. */
void heap_keep_small(void);

/* Seconds on the monotonic clock: for reporting how long something took, never for deciding. */
double clock_seconds(void);

#endif
