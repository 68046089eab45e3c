/*
 * model/json_text.h - JSON from outside. Where jansson lacks memory it may say that the text is
 * wrong; here the two are kept apart.
 */
#ifndef PARLEY_MODEL_JSON_TEXT_H
#define PARLEY_MODEL_JSON_TEXT_H

#include <stddef.h>

#include <jansson.h>

#include "base/problem.h"

/* Parses text[n], in which no key may be repeated. 0; -EINVAL: it is no JSON, `e` says where, and
 * the caller says so; -ENOMEM: said here, about the object `name`. The caller gives *root back;
 * it is NULL after an error. */
int json_text_parse(json_t **root, const char *text, size_t n, const char *name, json_error_t *e,
                    struct problems *why);

#endif
