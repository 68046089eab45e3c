/* daemon/sums.c - nettle's SHA-256, lists of sums. */
#include "daemon/sums.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

void summing_begin(struct summing *s)
{
    sha256_init(&s->state);
}

void summing_add(struct summing *s, const void *bytes, size_t n)
{
    sha256_update(&s->state, n, bytes);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct sum *)a)->name, ((const struct sum *)b)->name);
}

/* Room for one more at the end. */
static struct sum *append(struct sums *s)
{
    if (grow_array(&s->list, &s->cap, s->n + 1, sizeof(*s->list)) < 0)
        return NULL;
    return &s->list[s->n++];
}

static void sort(struct sums *s)
{
    if (s->n > 1)
        qsort(s->list, s->n, sizeof(*s->list), compare_names);
}

int sums_add(struct sums *s, const char *name, struct summing *sum)
{
    uint8_t digest[SHA256_DIGEST_SIZE];
    if (strlen(name) >= sizeof(s->list->name))
        return -ENAMETOOLONG;
    struct sum *e = append(s);
    if (e == NULL)
        return -ENOMEM;
    sha256_digest(&sum->state, sizeof(digest), digest);
    for (size_t i = 0; i < sizeof(digest); i++)
        snprintf(e->digits + 2 * i, 3, "%02x", digest[i]);
    snprintf(e->name, sizeof(e->name), "%s", name);
    sort(s);
    return 0;
}

/* One line, without its end. */
static int parse_line(struct sums *s, const char *line, size_t n)
{
    size_t digits = 0;
    while (digits < n && strchr("0123456789abcdef", line[digits]) != NULL && line[digits] != '\0')
        digits++;
    if (digits != 64 || n < 67 || line[64] != ' ' || (line[65] != ' ' && line[65] != '*') ||
        n - 66 >= sizeof(s->list->name) || memchr(line + 66, '/', n - 66) != NULL ||
        memchr(line + 66, '\0', n - 66) != NULL)
        return -EINVAL;
    struct sum *e = append(s);
    if (e == NULL)
        return -ENOMEM;
    memcpy(e->digits, line, 64);
    e->digits[64] = '\0';
    memcpy(e->name, line + 66, n - 66);
    e->name[n - 66] = '\0';
    return 0;
}

int sums_parse(struct sums *s, const char *text, size_t n, const char *file, struct problems *why)
{
    const char *end = text + n;
    for (int line = 1; text < end; line++) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        const char *next = stop != NULL ? stop + 1 : end;
        stop = stop != NULL ? stop : end;
        int err = stop == text ? 0 : parse_line(s, text, (size_t)(stop - text));
        if (err == -EINVAL)
            problem_add(why, err, "%s:%d: expected 64 hexadecimal digits, two blanks, a file name",
                        file, line);
        if (err < 0)
            return err;
        text = next;
    }
    sort(s);
    for (size_t i = 1; i < s->n; i++)
        if (compare_names(&s->list[i - 1], &s->list[i]) == 0)
            return problem_add(why, -EINVAL, "%s: %s is listed twice", file, s->list[i].name);
    return 0;
}

int sums_compare(const struct sums *listed, const struct sums *found, const char *where,
                 struct problems *why)
{
    size_t i = 0, j = 0;
    int err = 0;
    while (i < listed->n || j < found->n) {
        const struct sum *a = i < listed->n ? &listed->list[i] : NULL;
        const struct sum *b = j < found->n ? &found->list[j] : NULL;
        int order = a == NULL ? 1 : b == NULL ? -1 : compare_names(a, b);
        if (order < 0)
            err = problem_add(why, -EBADMSG, "%s: %s is missing", where, a->name);
        else if (order > 0)
            err = problem_add(why, -EBADMSG, "%s: %s is not in %s", where, b->name, SUMS_FILE);
        else if (strcmp(a->digits, b->digits) != 0)
            err = problem_add(why, -EBADMSG, "%s: %s: found SHA-256 %s, expected %s", where,
                              a->name, b->digits, a->digits);
        i += order <= 0;
        j += order >= 0;
    }
    return err;
}

void sums_write(const struct sums *s, FILE *f)
{
    for (size_t i = 0; i < s->n; i++)
        fprintf(f, "%s  %s\n", s->list[i].digits, s->list[i].name);
}

void sums_free(struct sums *s)
{
    free(s->list);
    *s = (struct sums){0};
}
