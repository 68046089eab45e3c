/* model/json_text.c - jansson's parser, and what it does not tell. */
#include "model/json_text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A repeated key of some length is not named by jansson, which has just read its closing quote. */
static void name_repeated(json_error_t *e, const char *text, size_t n)
{
    size_t end = e->position > 0 ? (size_t)e->position - 1 : 0, begin = end;
    if (json_error_code(e) != json_error_duplicate_key || strstr(e->text, "near") || end >= n)
        return;
    while (begin > 0 && text[begin - 1] != '"')
        begin--;
    snprintf(e->text, sizeof(e->text) - 1, "duplicate object key \"%.*s\"",
             (int)(end - begin < 100 ? end - begin : 100), text + begin);
}

int json_text_parse(json_t **root, const char *text, size_t n, const char *name, json_error_t *e,
                    struct problems *why)
{
    errno = 0; /* only a failing allocation leaves ENOMEM there */
    *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, e);
    if (errno != ENOMEM && *root == NULL)
        name_repeated(e, text, n);
    if (errno != ENOMEM)
        return *root != NULL ? 0 : -EINVAL;
    json_decref(*root); /* a text may lack the letter for which there was no room */
    *root = NULL;
    return problem_add(why, -ENOMEM, "%s: no memory to read it", name);
}
