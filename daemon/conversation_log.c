/*
 * daemon/conversation_log.c - what happened in a conversation, as lines of the event log.
 */
#include "daemon/conversation_private.h"

static struct event_line *begin(struct conversation *c, const char *event)
{
    struct floor_side *f = &c->floor;
    event_line_begin(&f->line, f->at - f->start, EAR_RATE, event);
    return &f->line;
}

static void end(struct conversation *c)
{
    const char *text = event_line_end(&c->floor.line);
    c->opts.log(c->opts.ctx, text, c->floor.line.n);
}

void log_turn(struct conversation *c, const struct turn_event *e, const struct turn_actions *a)
{
    struct floor_side *f = &c->floor;
    if (c->opts.log != NULL && event_line_turn(&f->line, e, a, f->start, EAR_RATE))
        end(c);
}

void log_waits(struct conversation *c)
{
    if (c->opts.log == NULL)
        return;
    event_line_int(begin(c, "waits"), "answer", c->floor.turn.answer);
    end(c);
}

static int64_t speech_ms(int64_t samples)
{
    return samples * 1000 / SPEECH_RATE;
}

static void put_text(struct conversation *c, struct event_line *l, const char *text)
{
    if (c->opts.texts)
        event_line_text(l, "text", text);
}

static void log_word(struct conversation *c, const struct report *r)
{
    struct event_line *l = begin(c, "word");
    event_line_int(l, "answer", r->answer);
    if (c->opts.texts)
        event_line_text(l, "text", r->text);
    else
        event_line_int(l, "bytes", r->a);
}

static void log_said(struct conversation *c, const struct report *r)
{
    struct event_line *l = begin(c, "said");
    event_line_int(l, "answer", r->answer);
    event_line_int(l, "tokens", r->a);
    event_line_int(l, "sound_ms", speech_ms(r->b));
    event_line_text(l, "stop", r->stop);
    put_text(c, l, r->text);
}

static void log_memory(struct conversation *c, const struct report *r)
{
    struct event_line *l = begin(c, "memory");
    event_line_int(l, "turn", r->turn);
    event_line_int(l, "answer", r->answer);
    event_line_int(l, "heard_ms", speech_ms(r->c));
    event_line_int(l, "tokens", r->a);
    event_line_int(l, "of", r->b);
    put_text(c, l, r->text);
}

static void log_forgot(struct conversation *c, const struct report *r)
{
    struct event_line *l = begin(c, "forgot");
    event_line_int(l, "turns", r->a);
    event_line_int(l, "left", r->b);
    event_line_int(l, "context", r->c);
    if (r->asked)
        event_line_bool(l, "asked", true);
}

static void log_failed(struct conversation *c, const struct report *r)
{
    struct event_line *l = begin(c, "failed");
    event_line_int(l, "turn", r->turn);
    event_line_text(l, "why", r->text);
}

void log_report(struct conversation *c, const struct report *r)
{
    if (c->opts.log == NULL)
        return;
    switch (r->kind) {
    case REPORT_WORD:
        log_word(c, r);
        break;
    case REPORT_SAID:
        log_said(c, r);
        break;
    case REPORT_MEMORY:
        log_memory(c, r);
        break;
    case REPORT_FORGOT:
        log_forgot(c, r);
        break;
    case REPORT_FAILED:
        log_failed(c, r);
        break;
    default: /* becomes a step of turn taking, which is logged */
        return;
    }
    end(c);
}
