/* base/problem.c - the list of sentences that an open function leaves behind. */
#include "base/problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int problem_add(struct problems *p, int err, const char *fmt, ...)
{
    if (p == NULL)
        return err;
    va_list ap;
    char *text = NULL;
    va_start(ap, fmt);
    if (p->n == PROBLEMS_MAX || vasprintf(&text, fmt, ap) < 0)
        p->dropped++;
    else
        p->text[p->n++] = text;
    va_end(ap);
    return err;
}

void problems_free(struct problems *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->text[i]);
    *p = (struct problems){0};
}
