/*
 * tests/fuzz/fuzz_config.c - any text as config.json and generation_config.json.
 *
 * A configuration that is accepted is bound as a synthetic model: sizes computed from it must not
 * overflow nor explode. (Unless it is big: then only the parser is tried.)
 */
#include <stdlib.h>

#include "model/bind.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t tensors(const struct decoder_config *c)
{
    return (size_t)c->layers * (size_t)(c->experts + 8);
}

static void bind(const struct config *config)
{
    struct model m = {.config = *config, .speech = config->has_speech};
    struct random_source source;
    random_source_init(&source, DT_F32, 0);
    struct binder b = {.source = &source.source};
    (void)bind_model(&b, &m);
    for (size_t i = 0; i < b.n; i++)
        if (b.pieces[i].count == 0 || b.pieces[i].offset >= b.owned)
            abort();
    binder_free_pieces(&b);
    for (size_t i = 0; i < b.n_blocks; i++)
        free(b.blocks[i]);
    free(b.blocks);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config c;
    struct problems why = {0};
    if (config_parse(&c, (const char *)data, size, "config.json", &why) == 0 &&
        tensors(&c.thinker) + tensors(&c.talker.text) + tensors(&c.talker.predictor) +
                tensors(&c.code2wav.transformer) + (size_t)c.audio.layers <
            2000)
        bind(&c);
    if (size > 0)
        (void)config_parse_generation(&c, (const char *)data, size, "generation", &why);
    problems_free(&why);
    return 0;
}
