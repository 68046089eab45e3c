/* model/json_text.c - jansson's parser, and what it does not tell. */
#include "model/json_text.h"

#include <errno.h>

int json_text_parse(json_t **root, const char *text, size_t n, const char *name, json_error_t *e,
                    struct problems *why)
{
    errno = 0; /* only a failing allocation leaves ENOMEM there */
    *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, e);
    if (errno != ENOMEM)
        return *root != NULL ? 0 : -EINVAL;
    json_decref(*root); /* a text may lack the letter for which there was no room */
    *root = NULL;
    return problem_add(why, -ENOMEM, "%s: no memory to read it", name);
}
