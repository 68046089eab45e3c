/* base/util.c - the few helpers that every folder wants. */
#include "base/util.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int find_word(const char *words, const char *word)
{
    size_t n = strlen(word);
    for (int i = 0;; i++) {
        size_t m = strcspn(words, "|");
        if (m == n && memcmp(words, word, n) == 0)
            return i;
        if (words[m] == '\0')
            return -1;
        words += m + 1;
    }
}

int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int grow_array(void *array, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap)
        return 0;
    size_t want = *cap ? *cap : 16, bytes;
    while (want < need)
        if (!mul_size(want, 2, &want))
            return -ENOMEM;
    if (!mul_size(want, size, &bytes))
        return -ENOMEM;
    void *old;
    memcpy(&old, array, sizeof(old)); /* `array` is a pointer to some T*, not to void* */
    void *grown = realloc(old, bytes);
    if (grown == NULL)
        return -ENOMEM;
    memcpy(array, &grown, sizeof(grown));
    *cap = want;
    return 0;
}

int read_file(char **text, size_t *len, const char *path, size_t max)
{
    int err = 0;
    char *buf = NULL;
    size_t n = 0, cap = 0;
    FILE *f = fopen(path, "rbe");
    if (f == NULL)
        return -errno;
    for (;;) {
        err = grow_array(&buf, &cap, n + 65536, 1);
        if (err < 0)
            goto out;
        size_t got = fread(buf + n, 1, 65535, f);
        n += got;
        if (n > max)
            err = -EFBIG;
        if (got == 0 && ferror(f) && errno == EINTR) {
            clearerr(f);
            continue;
        }
        if (err < 0 || got == 0)
            break;
    }
    if (err == 0 && ferror(f))
        err = errno ? -errno : -EIO;
out:
    fclose(f);
    if (err < 0) {
        free(buf);
        return err;
    }
    buf[n] = '\0';
    *text = buf;
    *len = n;
    return 0;
}

double clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void heap_keep_small(void)
{
#ifdef M_MMAP_THRESHOLD
    (void)mallopt(M_MMAP_THRESHOLD, 32 * 1024); /* half a second of speech */
#endif
}
