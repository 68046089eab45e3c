/*
 * daemon/screen.c - event lines become a page that a person can read; see screen.h.
 */
#include "daemon/screen.h"

#include <jansson.h>
#include <string.h>

#include "base/util.h"

enum { METER = 8, METER_FLOOR_DB = -60 };

/* What an earcon says, in words. */
static const struct {
    const char *event, *earcon, *text;
} notices[] = {
    {"mic_lost", "lost", "the microphone is gone; it is looked for"},
    {"mic_back", "back", "the microphone is back"},
    {"speaker_lost", "lost", "the loudspeaker is gone; it is looked for"},
    {"speaker_back", "back", "the loudspeaker is back"},
    {NULL, "wait", "... this takes a while"},
    {NULL, "empty", "(nothing to answer)"},
    {NULL, "cut", "(a long turn; this much of it is answered)"},
    {NULL, "repeat", "(not heard in full; please say it again)"},
    {NULL, "failed", "(that went wrong)"},
    {NULL, "full", "(that is too long for the context)"},
    {NULL, "muted", "(muted)"},
    {NULL, "unmuted", "(listening again)"},
};

void screen_open(struct screen *s, FILE *out, bool live, int width)
{
    *s = (struct screen){.out = out, .live = live, .width = max_int(width, 20)};
}

/* Takes the lower part off the terminal. */
static void erase(struct screen *s)
{
    for (int i = 0; i < s->drawn; i++)
        fputs(i == 0 ? "\r\033[K" : "\033[A\r\033[K", s->out);
    s->drawn = 0;
}

void screen_say(struct screen *s, const char *text)
{
    erase(s);
    fprintf(s->out, "%s\n", text);
    fflush(s->out);
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text != NULL ? text : "";
}

static int64_t number_of(const json_t *o, const char *key)
{
    return (int64_t)json_integer_value(json_object_get(o, key));
}

static bool acts(const json_t *o, const char *action)
{
    const json_t *actions = json_object_get(o, "actions");
    for (size_t i = 0; i < json_array_size(actions); i++)
        if (strcmp(json_string_value(json_array_get(actions, i)), action) == 0)
            return true;
    return false;
}

static void show_notice(struct screen *s, const json_t *o)
{
    for (size_t i = 0; i < ARRAY_LEN(notices); i++) {
        if (strcmp(notices[i].earcon, text_of(o, "earcon")) != 0 ||
            (notices[i].event != NULL && strcmp(notices[i].event, text_of(o, "event")) != 0))
            continue;
        screen_say(s, notices[i].text);
        return;
    }
}

/* A step of turn taking. */
static void show_step(struct screen *s, const json_t *o)
{
    char text[64];
    if (acts(o, "roll_back") || acts(o, "forget"))
        s->meant = false;
    if (acts(o, "hear"))
        s->hear_from = number_of(o, "hear_from");
    if (acts(o, "hear_end"))
        s->heard_s = (double)(number_of(o, "hear_to") - s->hear_from) / EAR_RATE;
    if (acts(o, "commit")) {
        s->meant = true;
        snprintf(text, sizeof(text), "you: (%.1f s)", s->heard_s);
        screen_say(s, text);
    }
    if (acts(o, "earcon"))
        show_notice(s, o);
}

static void add_word(struct screen *s, const json_t *o)
{
    const char *text = text_of(o, "text");
    size_t n = strlen(text);
    if (number_of(o, "answer") != s->number)
        s->answer_len = 0;
    s->number = number_of(o, "answer");
    if (s->answer_len + n >= sizeof(s->answer))
        return;
    memcpy(s->answer + s->answer_len, text, n + 1);
    s->answer_len += n;
}

/* An answer is over: what was heard of it. */
static void show_memory(struct screen *s, const json_t *o)
{
    char text[SCREEN_TEXT + 64];
    bool cut = number_of(o, "tokens") < number_of(o, "of");
    snprintf(text, sizeof(text), "parley: %s%s", text_of(o, "text"), cut ? " -" : "");
    if (number_of(o, "of") > 0)
        screen_say(s, text);
    s->meant = false;
    s->answer_len = 0;
}

void screen_line(struct screen *s, const char *line, size_t n)
{
    char text[256];
    json_t *o = json_loadb(line, n, 0, NULL);
    const char *event = text_of(o, "event");
    if (strcmp(event, "word") == 0) {
        add_word(s, o);
    } else if (strcmp(event, "memory") == 0) {
        show_memory(s, o);
    } else if (strcmp(event, "failed") == 0) {
        snprintf(text, sizeof(text), "the model failed: %s", text_of(o, "why"));
        screen_say(s, text);
    } else if (strcmp(event, "forgot") == 0) {
        snprintf(text, sizeof(text), "(the context was full: the oldest %d turns are forgotten)",
                 (int)number_of(o, "turns"));
        screen_say(s, text);
    } else if (json_object_get(o, "actions") != NULL) {
        show_step(s, o);
    }
    json_decref(o);
}

/* -- The part that is drawn again ------------------------------------------------------------- */

static void meter(char *text, size_t size, float db)
{
    float share = (db - METER_FLOOR_DB) / -METER_FLOOR_DB;
    int eighths = max_int(0, min_int(METER * 8, (int)(share * METER * 8)));
    size_t n = 0;
    for (int i = 0; i < METER && n < size; i++) { /* U+2581 to U+2588: bars of 1 to 8 eighths */
        int k = max_int(0, min_int(8, eighths - 8 * i));
        n += (size_t)snprintf(text + n, size - n, k > 0 ? "\xe2\x96%c" : " ", 0x80 + k);
    }
}

/* The end of the answer so far, as much as the width holds; whole characters. */
static void draw_answer(struct screen *s)
{
    size_t room = (size_t)max_int(s->width - 10, 10), from = 0, n = 0;
    for (size_t i = s->answer_len; i > 0 && n < room; i--)
        if (((unsigned char)s->answer[i - 1] & 0xc0) != 0x80 && ++n == room)
            from = i - 1;
    fprintf(s->out, "parley: %s\n", s->answer + from);
    s->drawn++;
}

void screen_draw(struct screen *s, const struct live_stats *st)
{
    char mic[METER * 4 + 1], speaker[METER * 4 + 1], took[64] = "";
    if (!s->live)
        return;
    erase(s);
    if (s->meant && s->answer_len > 0)
        draw_answer(s);
    meter(mic, sizeof(mic), st->now.level);
    meter(speaker, sizeof(speaker), st->now.far);
    int n = 0;
    if (st->now.answer_ms >= 0)
        n = snprintf(took, sizeof(took), "  answer %d ms", st->now.answer_ms);
    if (st->now.stop_ms >= 0)
        snprintf(took + n, sizeof(took) - (size_t)n, "  stop %d ms", st->now.stop_ms);
    const char *keys = st->now.state == TURN_MUTED ? "m unmutes" : "space stops, m mutes";
    if (s->width < 100)
        fprintf(s->out, "%-9s mic %s%s", turn_state_name(st->now.state), mic, took);
    else
        fprintf(s->out, "%-9s mic %s  speaker %s  voice %3.0f %%%s   [%s, q quits]",
                turn_state_name(st->now.state), mic, speaker, 100 * (double)st->now.speech, took,
                keys);
    s->drawn++;
    fflush(s->out);
}

void screen_close(struct screen *s)
{
    erase(s);
    fflush(s->out);
}
