/*
 * model/config_quant.c - quantization_config: accepted is the "pack-quantized" format of
 * compressed-tensors with symmetric weights of 8 bits and nothing else quantised; everything else
 * is refused by name.
 *
 * Which modules the configuration means to hit (targets, ignore) is not looked at: the names of the
 * stored tensors tell. Groups of columns are collected from all config_groups.
 */
#include "model/config_quant.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

struct quant_reader {
    struct quant_config *q;
    const char *file;
    char at[128]; /* path of the object that is being read */
    struct problems *why;
    int err;
};

static void refuse(struct quant_reader *r, const char *key, const json_t *v, const char *expected)
{
    char found[64];
    r->err = problem_add(r->why, -EINVAL, "%s: %s.%s: found %s, expected %s", r->file, r->at, key,
                         config_found_text(found, sizeof(found), v), expected);
}

static bool is_text(const json_t *v, const char *text)
{
    return json_is_string(v) && strcmp(json_string_value(v), text) == 0;
}

static bool absent(const json_t *v)
{
    return !v || json_is_null(v);
}

/* Absent, null, or an object or array with nothing in it. */
static bool empty(const json_t *v)
{
    return absent(v) || (json_is_object(v) && json_object_size(v) == 0) ||
           (json_is_array(v) && json_array_size(v) == 0);
}

static void add_group(struct quant_reader *r, int group)
{
    for (int i = 0; i < r->q->n; i++)
        if (r->q->group[i] == group)
            return;
    if (r->q->n < QUANT_GROUPS_MAX)
        r->q->group[r->q->n++] = group;
    else
        refuse(r, "group_size", NULL, "at most 8 sizes of groups");
}

/* strategy and group_size; older files have only the size, -1 for whole rows. */
static void read_group(struct quant_reader *r, const json_t *weights)
{
    json_t *strategy = json_object_get(weights, "strategy");
    json_t *size = json_object_get(weights, "group_size");
    json_int_t group = json_integer_value(size);
    bool rows = absent(size) || (json_is_integer(size) && group == -1);
    if (is_text(strategy, "channel") || (absent(strategy) && rows && size)) {
        add_group(r, 0);
        return;
    }
    if (!is_text(strategy, "group") && !(absent(strategy) && !rows)) {
        refuse(r, "strategy", strategy, "\"group\" or \"channel\"");
        return;
    }
    if (!json_is_integer(size) || group < 1 || group > 65536)
        refuse(r, "group_size", size, "an integer from 1 to 65536");
    else
        add_group(r, (int)group);
}

static void read_weights(struct quant_reader *r, const json_t *w)
{
    json_t *v = json_object_get(w, "num_bits");
    if (!json_is_integer(v) || json_integer_value(v) != 8)
        refuse(r, "num_bits", v, "8");
    v = json_object_get(w, "type");
    if (!absent(v) && !is_text(v, "int"))
        refuse(r, "type", v, "\"int\"");
    v = json_object_get(w, "symmetric");
    if (!absent(v) && !json_is_true(v))
        refuse(r, "symmetric", v, "true, zero points are not implemented");
    v = json_object_get(w, "actorder");
    if (!absent(v) && !json_is_false(v) && !is_text(v, "weight") && !is_text(v, "static"))
        refuse(r, "actorder", v, "null, columns in another order are not implemented");
    v = json_object_get(w, "dynamic");
    if (!absent(v) && !json_is_false(v))
        refuse(r, "dynamic", v, "false");
    read_group(r, w);
}

static void read_scheme(struct quant_reader *r, const json_t *scheme)
{
    static const char *const activations[] = {"input_activations", "output_activations"};
    for (size_t i = 0; i < ARRAY_LEN(activations); i++) {
        json_t *v = json_object_get(scheme, activations[i]);
        if (!absent(v))
            refuse(r, activations[i], v, "null, only weights may be quantised");
    }
    json_t *format = json_object_get(scheme, "format");
    if (!absent(format) && !is_text(format, "pack-quantized"))
        refuse(r, "format", format, "\"pack-quantized\"");
    json_t *weights = json_object_get(scheme, "weights");
    if (!json_is_object(weights)) {
        refuse(r, "weights", weights, "an object");
        return;
    }
    size_t n = strlen(r->at);
    snprintf(r->at + n, sizeof(r->at) - n, ".weights");
    read_weights(r, weights);
}

static void read_section(struct quant_reader *r, const char *place, json_t *section)
{
    static const char *const unused[] = {"kv_cache_scheme", "transform_config"};
    json_t *method = json_object_get(section, "quant_method"), *v, *scheme;
    const char *name;
    snprintf(r->at, sizeof(r->at), "%s", place);
    if (!absent(method) && !is_text(method, "compressed-tensors")) {
        refuse(r, "quant_method", method, "\"compressed-tensors\" with 8-bit weights, or none");
        return;
    }
    v = json_object_get(section, "format");
    if (!is_text(v, "pack-quantized")) {
        refuse(r, "format", v, "\"pack-quantized\" with 8-bit weights");
        return;
    }
    v = json_object_get(section, "quantization_status");
    if (!absent(v) && !is_text(v, "compressed"))
        refuse(r, "quantization_status", v, "\"compressed\"");
    for (size_t i = 0; i < ARRAY_LEN(unused); i++)
        if (!empty(v = json_object_get(section, unused[i])))
            refuse(r, unused[i], v, "null, it is not implemented");
    v = json_object_get(json_object_get(section, "sparsity_config"), "format");
    if (!absent(v) && !is_text(v, "dense"))
        refuse(r, "sparsity_config.format", v, "\"dense\"");
    v = json_object_get(section, "config_groups");
    if (!json_is_object(v) || json_object_size(v) == 0)
        refuse(r, "config_groups", v, "an object with at least one group");
    json_object_foreach(v, name, scheme)
    {
        snprintf(r->at, sizeof(r->at), "%s.config_groups.%.30s", place, name);
        read_scheme(r, scheme);
    }
}

/* The object at one or two levels below the root. */
static json_t *find(json_t *root, const char *path)
{
    char key[64];
    for (size_t n; root && *path; path += n + (path[n] == '.')) {
        n = strcspn(path, ".");
        snprintf(key, sizeof(key), "%.*s", (int)n, path);
        root = json_object_get(root, key);
    }
    return root;
}

int config_parse_quant(struct quant_config *q, json_t *root, const char *file, struct problems *why)
{
    static const char *const places[] = {"quantization_config", "compression_config",
                                         "thinker_config.quantization_config",
                                         "thinker_config.text_config.quantization_config",
                                         "talker_config.quantization_config"};
    struct quant_reader r = {.q = q, .file = file, .why = why};
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        json_t *section = find(root, places[i]);
        if (absent(section))
            continue;
        if (json_is_object(section))
            read_section(&r, places[i], section);
        else
            r.err =
                problem_add(why, -EINVAL, "%s: %s: found no object, expected one", file, places[i]);
    }
    return r.err;
}
