/*
 * talker/predictor.c - the residual codes of one frame.
 *
 *   pass 0:  rows H, E(c0) at positions 0, 1       -> head 0    -> c1
 *   pass g:  row  E_g(c_g) at position g + 1       -> head g    -> c_{g+1},  g = 1 .. groups - 2
 *
 * E is the Talker's codec embedding, E_g the predictor's own table g - 1. The last table has no
 * pass here: it only counts in the Talker's next input (talker.c).
 */
#include "talker/predictor.h"

#include <errno.h>
#include <stdlib.h>

#include "model/decoder.h"

enum { ROWS = 2 };

struct predictor {
    const struct talker_weights *w;
    struct device *dev;
    struct decoder *decoder;
    struct sampling sampling;
    int groups, hidden, vocab;
    float *x;      /* [ROWS, hidden] */
    float *normed; /* [hidden] */
    float *logits; /* [vocab] */
    int32_t *pos;  /* [groups] position of each pass's first row: 0, 2, 3, ... */
};

static struct decoder_opts decoder_options(const struct model *m, struct device *dev)
{
    return (struct decoder_opts){.weights = &m->talker.predictor,
                                 .device = dev,
                                 .max_positions = m->config.talker.groups,
                                 .max_rows = ROWS,
                                 .kv_type = DT_F32}; /* a few rows: precision costs nothing */
}

/* The positions never change: no pass has to wait for the host to say them. */
static int fill_positions(struct predictor *p)
{
    p->pos = p->dev->op->alloc(p->dev, (size_t)p->groups * sizeof(*p->pos));
    if (p->pos == NULL)
        return -ENOMEM;
    for (int32_t g = 0; g < p->groups; g++) {
        int32_t pos = g > 0 ? g + 1 : 0;
        p->dev->op->put(p->dev, p->pos + g, &pos, sizeof(pos));
    }
    return 0;
}

int predictor_open(struct predictor **ret, const struct model *m, struct device *dev,
                   const struct sampling *s, struct problems *why)
{
    const struct decoder_config *c = &m->config.talker.predictor;
    const struct decoder_opts o = decoder_options(m, dev);
    size_t hidden = (size_t)c->hidden, f = sizeof(float);
    struct predictor *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return problem_add(why, -ENOMEM, "code predictor: no memory");
    p->w = &m->talker;
    p->dev = dev;
    p->sampling = *s;
    p->groups = m->config.talker.groups;
    p->hidden = c->hidden;
    p->vocab = c->vocab;
    int err = decoder_open(&p->decoder, &o, why);
    if (err < 0)
        goto out;
    p->x = dev->op->alloc(dev, ROWS * hidden * f);
    p->normed = dev->op->alloc(dev, hidden * f);
    p->logits = dev->op->alloc(dev, (size_t)c->vocab * f);
    if (p->x == NULL || p->normed == NULL || p->logits == NULL || fill_positions(p) < 0) {
        err = problem_add(why, -ENOMEM, "code predictor: no memory for its buffers");
        goto out;
    }
    *ret = p;
    return 0;
out:
    predictor_close(p);
    return err;
}

/* Code g + 1 from x[n, hidden], whose last row is that of code g. */
static void pass(struct predictor *p, int g, int n, int32_t *codes, uint64_t *draw)
{
    const struct ops *op = p->dev->op;
    const struct norm norm = decoder_final(p->decoder);
    const struct weight *const head[] = {&p->w->code_head[g]};
    decoder_run_at(p->decoder, p->x, n, p->pos + g);
    op->norm_linear(p->dev, &p->logits, p->normed, p->x + (n - 1) * p->hidden, 1, &norm, head, 1);
    op->sample(p->dev, codes + g + 1, p->logits, p->vocab, &p->sampling, NULL, draw);
}

void predictor_frame(struct predictor *p, int32_t *codes, const float *hidden, uint64_t *draw)
{
    const struct ops *op = p->dev->op;
    op->copy(p->dev, p->x, hidden, (size_t)p->hidden * sizeof(float));
    op->embed(p->dev, p->x + p->hidden, &p->w->codec_embedding, codes, 1, 0);
    pass(p, 0, ROWS, codes, draw);
    for (int g = 1; g < p->groups - 1; g++) {
        op->embed(p->dev, p->x, &p->w->code_embedding[g - 1], codes + g, 1, 0);
        pass(p, g, 1, codes, draw);
    }
}

size_t predictor_bytes(const struct model *m)
{
    const struct decoder_config *c = &m->config.talker.predictor;
    const struct decoder_opts o = decoder_options(m, NULL);
    return decoder_bytes(&o) + ((ROWS + 1) * (size_t)c->hidden + (size_t)c->vocab) * sizeof(float) +
           (size_t)m->config.talker.groups * sizeof(int32_t);
}

void predictor_close(struct predictor *p)
{
    if (p == NULL)
        return;
    decoder_close(p->decoder);
    p->dev->op->release(p->dev, p->x);
    p->dev->op->release(p->dev, p->normed);
    p->dev->op->release(p->dev, p->logits);
    p->dev->op->release(p->dev, p->pos);
    free(p);
}
