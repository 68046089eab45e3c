/*
 * daemon/conversation.c - a conversation as a whole: its two sides, the rings between them, and how
 * things stand for onlookers.
 */
#include <errno.h>
#include <stdlib.h>

#include "daemon/conversation_private.h"

enum { ORDERS = 256, REPORTS = 1024, SOUND_MOST_S = 120 };

/* So much sound may wait for the work side. */
static size_t sound_capacity(const struct conversation *c)
{
    const struct turn_times *t = &c->floor.turn.for_;
    uint64_t most = (uint64_t)SOUND_MOST_S * EAR_RATE;
    return (size_t)((t->turn_max < most ? t->turn_max : most) + c->floor.past_size);
}

static int open_rings(struct conversation *c)
{
    int err = ring_open(&c->sound, sizeof(float), sound_capacity(c), 0);
    if (err == 0)
        err = ring_open(&c->orders, sizeof(struct order), ORDERS, 0);
    if (err == 0)
        err = ring_open(&c->reports, sizeof(struct report), REPORTS, 0);
    if (err == 0 && sem_init(&c->wake, 0, 0) < 0)
        err = -errno;
    c->wake_open = err == 0;
    return err;
}

int conversation_open(struct conversation **ret, const struct conversation_opts *o,
                      struct problems *why)
{
    if (o->session->talker == NULL)
        return problem_add(why, -EINVAL, "conversation: the model was opened without speech");
    struct conversation *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return -ENOMEM;
    c->opts = *o;
    c->player = o->player;
    atomic_init(&c->answer_ms, -1);
    atomic_init(&c->stop_ms, -1);
    int err = floor_open(c, o, why);
    if (err == 0)
        err = open_rings(c);
    if (err == 0)
        err = work_open(c, o, why);
    if (err < 0) {
        conversation_close(c);
        return err;
    }
    *ret = c;
    return 0;
}

void conversation_close(struct conversation *c)
{
    if (c == NULL)
        return;
    work_close(&c->work);
    floor_close(&c->floor);
    ring_close(c->sound);
    ring_close(c->orders);
    ring_close(c->reports);
    if (c->wake_open)
        sem_destroy(&c->wake);
    free(c);
}

/* The semaphore never counts beyond one: who has been woken need not be woken again. */
void conversation_wake(struct conversation *c)
{
    if (!atomic_exchange(&c->woken, true))
        sem_post(&c->wake);
}

void conversation_wait(struct conversation *c)
{
    while (sem_wait(&c->wake) < 0 && errno == EINTR)
        ;
    atomic_store(&c->woken, false);
}

void conversation_now(const struct conversation *c, struct conversation_now *now)
{
    *now = (struct conversation_now){
        .state = (enum turn_state)atomic_load(&c->state),
        .at = atomic_load(&c->at),
        .speech = atomic_load(&c->speech),
        .level = atomic_load(&c->level),
        .far = atomic_load(&c->far),
        .turns = atomic_load(&c->turns),
        .replies = atomic_load(&c->replies),
        .interrupted = atomic_load(&c->interrupted),
        .resumed = atomic_load(&c->resumed),
        .failed = atomic_load(&c->failed),
        .answer_ms = atomic_load(&c->answer_ms),
        .stop_ms = atomic_load(&c->stop_ms),
        .context_used = atomic_load(&c->context_used),
        .context = atomic_load(&c->context),
        .rate = atomic_load(&c->rate),
    };
}
