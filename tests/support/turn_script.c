/* tests/support/turn_script.c - plays a list of events to turn taking and writes down what it did.
 */
#include "tests/support/turn_script.h"

#include <stdio.h>
#include <string.h>

void turn_script_open(struct turn_script *s, const struct turn_opts *o)
{
    memset(s, 0, sizeof(*s));
    s->wrong = floor_open(&s->floor, o, UINT64_MAX - 2000 * SCRIPT_MS);
}

static void log_step(struct turn_script *s, enum turn_event_kind kind)
{
    char said[256];
    const struct turn_actions *a = &s->floor.last;
    size_t n = strlen(s->log);
    if (a->set == 0 && a->was == a->now)
        return;
    floor_say(&s->floor, said, sizeof(said));
    int length = snprintf(s->log + n, sizeof(s->log) - n, "%d %s: %s\n", s->now_ms,
                          turn_event_name(kind), said);
    if (s->wrong == NULL && length >= (int)(sizeof(s->log) - n))
        s->wrong = "the log is full";
}

void turn_script_step(struct turn_script *s, const struct cue *c)
{
    struct turn_event e = {.kind = c->kind,
                           .at = s->floor.started + (uint64_t)s->now_ms * SCRIPT_MS,
                           .age = (uint32_t)c->age_ms * SCRIPT_MS,
                           .probability = c->probability};
    const char *wrong = floor_step(&s->floor, e, false);
    if (s->wrong == NULL)
        s->wrong = wrong;
    log_step(s, c->kind);
}

static void cue(struct turn_script *s, const struct cue *c)
{
    if (c->kind == TURN_SPEECH_ONSET || c->kind == TURN_SPEECH_END || c->kind == TURN_TICK)
        s->probability = c->probability;
    if (c->kind != TURN_TICK)
        turn_script_step(s, c);
}

void turn_script_play(struct turn_script *s, const struct cue *cues, size_t n, int until_ms)
{
    for (size_t i = 0; s->now_ms < until_ms;) {
        s->now_ms += SCRIPT_PERIOD_MS;
        for (; i < n && cues[i].at_ms <= s->now_ms; i++)
            cue(s, &cues[i]);
        turn_script_step(s, &(struct cue){0, TURN_TICK, 0, s->probability});
    }
}
