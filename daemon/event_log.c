/*
 * daemon/event_log.c - lines of the event log.
 *
 * A field is written behind the last one and taken back in full if the line would become too long;
 * RESERVE bytes are kept for the end. Numbers are put together from integers, because printf's
 * decimal point is a matter of the locale.
 */
#include "daemon/event_log.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { RESERVE = 16 }; /* ,"cut":true}\n and NUL */

/* Appends if it fits in what is not reserved. */
static bool put(struct event_line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static bool put(struct event_line *l, const char *fmt, ...)
{
    va_list args;
    size_t room = EVENT_LINE_MAX - RESERVE - l->n;
    va_start(args, fmt);
    int n = vsnprintf(l->text + l->n, room, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= room) {
        l->text[l->n] = '\0';
        l->cut = true;
        return false;
    }
    l->n += (size_t)n;
    return true;
}

static void take_back(struct event_line *l, size_t n)
{
    l->n = n;
    l->text[n] = '\0';
}

/* One code point of UTF-8 at *s, which is moved on; 0xFFFD for a byte that belongs to none. */
static uint32_t code_point(const unsigned char **s)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    uint32_t c = *(*s)++;
    int more = c >= 0xF0 && c < 0xF8   ? 3
               : c >= 0xE0 && c < 0xF0 ? 2
               : c >= 0xC0 && c < 0xE0 ? 1
                                       : 0;
    if (more == 0)
        return c < 0x80 ? c : 0xFFFD;
    uint32_t value = c & (0x3Fu >> more);
    for (int i = 0; i < more; i++) {
        if (((*s)[i] & 0xC0) != 0x80) /* also the NUL */
            return 0xFFFD;
        value = value << 6 | ((*s)[i] & 0x3Fu);
    }
    if (value < least[more] || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
        return 0xFFFD;
    *s += more;
    return value;
}

static bool put_char(struct event_line *l, uint32_t c)
{
    if (c == '"' || c == '\\')
        return put(l, "\\%c", (char)c);
    if (c == '\n')
        return put(l, "\\n");
    if (c >= 0x20 && c < 0x7F)
        return put(l, "%c", (char)c);
    if (c < 0x10000)
        return put(l, "\\u%04x", c);
    c -= 0x10000;
    return put(l, "\\u%04x\\u%04x", 0xD800 + (c >> 10), 0xDC00 + (c & 0x3FF));
}

static void put_string(struct event_line *l, const char *utf8)
{
    const unsigned char *s = (const unsigned char *)utf8;
    put(l, "\"");
    while (*s != '\0' && put_char(l, code_point(&s)))
        ;
    l->text[l->n++] = '"'; /* from the reserve, if need be */
    l->text[l->n] = '\0';
}

static bool put_real(struct event_line *l, double value, int decimals)
{
    static const double scales[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6};
    decimals = decimals < 0 ? 0 : decimals > 6 ? 6 : decimals;
    double scaled = rint(fabs(value) * scales[decimals]); /* half to even */
    if (!(scaled < 9e18))
        return put(l, "null");
    uint64_t whole = (uint64_t)scaled, scale = (uint64_t)scales[decimals];
    const char *sign = value < 0 && whole > 0 ? "-" : "";
    if (decimals == 0)
        return put(l, "%s%" PRIu64, sign, whole);
    return put(l, "%s%" PRIu64 ".%0*" PRIu64, sign, whole / scale, decimals, whole % scale);
}

/* ,"key": with room for at least an empty value behind it. */
static bool put_key(struct event_line *l, const char *key)
{
    size_t n = l->n;
    if (n + RESERVE + strlen(key) + 8 < EVENT_LINE_MAX && put(l, ",\"%s\":", key))
        return true;
    take_back(l, n);
    l->cut = true;
    return false;
}

void event_line_begin(struct event_line *l, uint64_t at, int rate, const char *event)
{
    l->n = 0;
    l->cut = false;
    /* Tenths of a ms, in integers: exact for ever. */
    uint64_t hz = rate > 0 ? (uint64_t)rate : 1;
    uint64_t tenths = at / hz * 10000 + at % hz * 10000 / hz;
    put(l, "{\"at\":%" PRIu64 ",\"ms\":%" PRIu64 ".%" PRIu64 ",\"event\":", at, tenths / 10,
        tenths % 10);
    put_string(l, event);
}

void event_line_text(struct event_line *l, const char *key, const char *utf8)
{
    if (put_key(l, key))
        put_string(l, utf8);
}

void event_line_int(struct event_line *l, const char *key, int64_t value)
{
    size_t n = l->n;
    if (put_key(l, key) && !put(l, "%" PRId64, value))
        take_back(l, n);
}

void event_line_real(struct event_line *l, const char *key, double value, int decimals)
{
    size_t n = l->n;
    if (put_key(l, key) && !put_real(l, value, decimals))
        take_back(l, n);
}

void event_line_bool(struct event_line *l, const char *key, bool value)
{
    size_t n = l->n;
    if (put_key(l, key) && !put(l, value ? "true" : "false"))
        take_back(l, n);
}

static void put_actions(struct event_line *l, uint32_t set)
{
    put(l, ",\"actions\":[");
    const char *comma = "";
    for (unsigned bit = 0; bit < TURN_ACTIONS; bit++) {
        if (!(set & 1u << bit))
            continue;
        put(l, "%s\"%s\"", comma, turn_action_name(bit));
        comma = ",";
    }
    put(l, "]");
}

static void put_event(struct event_line *l, const struct turn_event *e)
{
    switch (e->kind) {
    case TURN_SPEECH_ONSET:
    case TURN_END_LIKELY:
        event_line_real(l, "probability", (double)e->probability, 3);
        break;
    default:
        break;
    }
    if (e->age > 0)
        event_line_int(l, "age", e->age);
}

bool event_line_turn(struct event_line *l, const struct turn_event *e, const struct turn_actions *a,
                     uint64_t start, int rate)
{
    if (e->kind == TURN_TICK && a->set == 0 && a->was == a->now)
        return false;
    event_line_begin(l, e->at - start, rate, turn_event_name(e->kind));
    put_event(l, e);
    event_line_text(l, "was", turn_state_name(a->was));
    event_line_text(l, "state", turn_state_name(a->now));
    put_actions(l, a->set);
    event_line_int(l, "turn", a->turn);
    event_line_int(l, "answer", a->answer);
    if (a->set & (TURN_DO_HEAR | TURN_DO_ROLL_BACK))
        event_line_int(l, "hear_from", (int64_t)(a->hear_from - start));
    if (a->set & TURN_DO_HEAR_END)
        event_line_int(l, "hear_to", (int64_t)(a->hear_to - start));
    if (a->set & TURN_DO_EARCON)
        event_line_text(l, "earcon", turn_earcon_name(a->earcon));
    return true;
}

const char *event_line_end(struct event_line *l)
{
    const char *end = l->cut ? ",\"cut\":true}\n" : "}\n";
    size_t n = strlen(end);
    memcpy(l->text + l->n, end, n + 1);
    l->n += n;
    return l->text;
}

bool event_has_action(const json_t *line, const char *name)
{
    const json_t *actions = json_object_get(line, "actions");
    for (size_t i = 0; i < json_array_size(actions); i++)
        if (strcmp(json_string_value(json_array_get(actions, i)), name) == 0)
            return true;
    return false;
}
