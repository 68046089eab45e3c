/*
 * model/config_quant.h - the part of config.json that tells how weights are quantised. Private to
 * model/config*.c.
 */
#ifndef PARLEY_MODEL_CONFIG_QUANT_H
#define PARLEY_MODEL_CONFIG_QUANT_H

#include <jansson.h>

#include "model/config.h"

/* Fills *q from the configuration's root; 0, or -EINVAL after a sentence for everything that is not
 * implemented. */
int config_parse_quant(struct quant_config *q, json_t *root, const char *file,
                       struct problems *why);

/* What a sentence says of a value; may use buf. In config.c. */
const char *config_found_text(char *buf, size_t size, const json_t *v);

#endif
