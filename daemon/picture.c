/*
 * daemon/picture.c - a conversation as an SVG.
 *
 * A row, from the top: what sounded in the room (names of recordings, waveform), the band of turn
 * states, marks of events in three staggered lines, the loudspeaker (waveform, what was said).
 */
#include "daemon/picture.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/event_log.h"

enum {
    PERIOD_MS = 10,
    ROWS_MAX = 6,
    ROW_MS = 10000, /* of a row at least */
    WIDTH = 1120,
    LEFT = 60,
    TOP = 54,
    ROW_H = 236,
    USER_Y = 46,
    WAVE_H = 26, /* half of a waveform's height */
    BAND_Y = 78,
    BAND_H = 16,
    MARK_Y = 108,
    MARK_H = 11,
    MARK_LINES = 3,
    SPEAKER_Y = 172,
    SAID_Y = 212,
    CHAR_W = 6
};

struct column { /* 10 ms */
    float low[2], high[2];
    enum turn_state state;
};

enum lane { LANE_USER, LANE_EVENT, LANE_SPEAKER };

struct mark {
    double ms; /* < 0: not to be seen */
    enum lane lane;
    char *label;
    int answer; /* of LANE_SPEAKER */
};

struct picture {
    char *title;
    struct column *columns;
    struct mark *marks;
    size_t n, cap, n_marks, cap_marks;
};

static const char *const colours[TURN_STATES] = {"#eeeeee", "#8fbfe8", "#f7cf86",
                                                 "#93cf93", "#ee8877", "#b0b0b0"};

int picture_open(struct picture **ret, const char *title)
{
    struct picture *p = calloc(1, sizeof(*p));
    if (p == NULL || (p->title = strdup(title)) == NULL) {
        picture_close(p);
        return -ENOMEM;
    }
    *ret = p;
    return 0;
}

void picture_close(struct picture *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->n_marks; i++)
        free(p->marks[i].label);
    free(p->marks);
    free(p->columns);
    free(p->title);
    free(p);
}

static void extent(const float *pcm, size_t n, float *low, float *high)
{
    *low = *high = 0;
    for (size_t i = 0; i < n; i++) {
        *low = fminf(*low, pcm[i]);
        *high = fmaxf(*high, pcm[i]);
    }
}

int picture_period(struct picture *p, const float *user, const float *speaker, size_t n,
                   enum turn_state state)
{
    int err = grow_array(&p->columns, &p->cap, p->n + 1, sizeof(*p->columns));
    if (err < 0)
        return err;
    struct column *c = &p->columns[p->n++];
    c->state = state;
    extent(user, n, &c->low[0], &c->high[0]);
    extent(speaker, n, &c->low[1], &c->high[1]);
    return 0;
}

/* -- Marks ------------------------------------------------------------------------------------ */

static int add_mark(struct picture *p, double ms, enum lane lane, const char *label)
{
    int err = grow_array(&p->marks, &p->cap_marks, p->n_marks + 1, sizeof(*p->marks));
    char *copy = err == 0 ? strdup(label) : NULL;
    if (copy == NULL)
        return -ENOMEM;
    p->marks[p->n_marks++] = (struct mark){ms, lane, copy, 0};
    return 0;
}

static int answer_of(const json_t *line)
{
    return (int)json_integer_value(json_object_get(line, "answer"));
}

/* The words of an answer are one mark, which is seen from the moment when it sounds. */
static int add_word(struct picture *p, int answer, const char *text)
{
    struct mark *last = NULL;
    char *label;
    for (size_t i = p->n_marks; i > 0 && last == NULL; i--)
        if (p->marks[i - 1].lane == LANE_SPEAKER)
            last = &p->marks[i - 1];
    if (last == NULL || last->answer != answer) {
        int err = add_mark(p, -1, LANE_SPEAKER, text);
        if (err == 0)
            p->marks[p->n_marks - 1].answer = answer;
        return err;
    }
    if (asprintf(&label, "%s%s", last->label, text) < 0)
        return -ENOMEM;
    free(last->label);
    last->label = label;
    return 0;
}

static void show_words(struct picture *p, int answer, double ms)
{
    for (size_t i = 0; i < p->n_marks; i++)
        if (p->marks[i].lane == LANE_SPEAKER && p->marks[i].answer == answer)
            p->marks[i].ms = ms;
}

/* Of an answer that was cut off only what was heard is shown. */
static int keep_heard(struct picture *p, const json_t *line, const char *text)
{
    double tokens = json_number_value(json_object_get(line, "tokens"));
    bool cut = tokens < json_number_value(json_object_get(line, "of"));
    for (size_t i = 0; cut && i < p->n_marks; i++) {
        struct mark *m = &p->marks[i];
        char *label;
        if (m->lane != LANE_SPEAKER || m->answer != answer_of(line))
            continue;
        if (asprintf(&label, "%s ...", text) < 0)
            return -ENOMEM;
        free(m->label);
        m->label = label;
    }
    return 0;
}

/* "voices/cough.flac" without its folder and its ending. */
static int add_sound(struct picture *p, double ms, const char *name)
{
    char label[64];
    const char *slash = strrchr(name, '/');
    const char *from = slash ? slash + 1 : name;
    snprintf(label, sizeof(label), "%.*s", (int)strcspn(from, "."), from);
    return add_mark(p, ms, LANE_USER, label);
}

/* What somebody who looks wants to see of a step of turn taking. */
static void label_actions(const json_t *line, char *label, size_t size)
{
    static const char *const shown[] = {"hold",      "resume", "drop",   "truncate",
                                        "roll_back", "forget", "commit", "lapse"};
    size_t n = 0;
    label[0] = '\0';
    for (size_t k = 0; k < ARRAY_LEN(shown) && n < size; k++)
        if (event_has_action(line, shown[k]))
            n += (size_t)snprintf(label + n, size - n, "%s%s", n ? " " : "", shown[k]);
    const char *earcon = json_string_value(json_object_get(line, "earcon"));
    if (earcon != NULL && n < size)
        snprintf(label + n, size - n, "%s(%s)", n ? " " : "", earcon);
}

static int mark_line(struct picture *p, const json_t *line)
{
    char label[96];
    double ms = json_number_value(json_object_get(line, "ms"));
    const char *event = json_string_value(json_object_get(line, "event"));
    const char *text = json_string_value(json_object_get(line, "text"));
    const char *name = json_string_value(json_object_get(line, "name"));
    if (event != NULL && strcmp(event, "sound") == 0)
        return add_sound(p, ms, name ? name : "?");
    if (event != NULL && strcmp(event, "memory") == 0)
        return text ? keep_heard(p, line, text) : 0;
    if (event != NULL && strcmp(event, "cue") == 0)
        return add_mark(p, ms, LANE_EVENT, name ? name : "?");
    if (event != NULL && strcmp(event, "word") == 0)
        return text ? add_word(p, answer_of(line), text) : 0;
    if (event_has_action(line, "play"))
        show_words(p, answer_of(line), ms);
    label_actions(line, label, sizeof(label));
    return label[0] ? add_mark(p, ms, LANE_EVENT, label) : 0;
}

int picture_line(struct picture *p, const char *line, size_t n)
{
    json_t *json = json_loadb(line, n, 0, NULL);
    if (json == NULL)
        return 0; /* not a line of the log: nothing to be seen */
    int err = mark_line(p, json);
    json_decref(json);
    return err;
}

/* -- SVG -------------------------------------------------------------------------------------- */

struct page {
    FILE *f;
    const struct picture *p;
    size_t rows, columns; /* per row */
    double scale[2];      /* of both waveforms */
};

static void put_text(FILE *f, const char *text)
{
    for (const char *s = text; *s != '\0'; s++)
        switch (*s) {
        case '<':
            fputs("&lt;", f);
            break;
        case '>':
            fputs("&gt;", f);
            break;
        case '&':
            fputs("&amp;", f);
            break;
        default:
            fputc((unsigned char)*s < ' ' ? ' ' : *s, f);
        }
}

static double place(const struct page *g, size_t column)
{
    return LEFT + (double)column * (WIDTH - LEFT) / (double)g->columns;
}

/* One closed outline: the maxima forth, the minima back; at most one point for a third of a unit.
 */
static void put_wave(const struct page *g, size_t from, size_t to, int side, int y,
                     const char *colour)
{
    const struct column *c = g->p->columns;
    size_t step = g->columns / (3 * (WIDTH - LEFT)) + 1;
    fprintf(g->f, "<path fill=\"%s\" d=\"M%d %d", colour, LEFT, y);
    for (size_t i = from; i < to; i += step) {
        float high = 0;
        for (size_t k = i; k < i + step && k < to; k++)
            high = fmaxf(high, c[k].high[side]);
        fprintf(g->f, "L%.1f %.1f", place(g, i - from), y - (double)high * g->scale[side] - 0.3);
    }
    for (size_t i = to; i > from; i -= min_size(step, i - from)) {
        float low = 0;
        for (size_t k = i; k > from && k + step > i; k--)
            low = fminf(low, c[k - 1].low[side]);
        fprintf(g->f, "L%.1f %.1f", place(g, i - from), y - (double)low * g->scale[side] + 0.3);
    }
    fprintf(g->f, "z\"/>\n");
}

static void put_band(const struct page *g, size_t from, size_t to)
{
    const struct column *c = g->p->columns;
    for (size_t i = from, end; i < to; i = end) {
        for (end = i; end < to && c[end].state == c[i].state; end++)
            ;
        double x = place(g, i - from), w = place(g, end - from) - x;
        const char *name = turn_state_name(c[i].state);
        fprintf(g->f, "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", x,
                BAND_Y, w, BAND_H, colours[c[i].state]);
        if (w > (double)strlen(name) * CHAR_W + 4)
            fprintf(g->f, "<text x=\"%.1f\" y=\"%d\">%s</text>\n", x + 3, BAND_Y + 12, name);
    }
}

/* Labels of a lane share `lines` lines; each takes the first one that is free again. */
static void put_lane(const struct page *g, size_t from, size_t to, enum lane lane, int y, int lines)
{
    double free_at[MARK_LINES] = {0};
    for (size_t i = 0; i < g->p->n_marks; i++) {
        const struct mark *m = &g->p->marks[i];
        size_t column = (size_t)(m->ms / PERIOD_MS);
        if (m->lane != lane || m->ms < 0 || column < from || column >= to)
            continue;
        double x = place(g, column - from);
        int line = 0;
        for (int k = 0; k < lines; k++)
            if (free_at[k] <= x) {
                line = k;
                break;
            } else if (free_at[k] < free_at[line]) {
                line = k;
            }
        double width = (double)strlen(m->label) * CHAR_W + 2;
        double at = lane == LANE_SPEAKER ? fmax(x, free_at[line]) : x;
        at = fmax(LEFT, fmin(at, WIDTH + 16 - width));
        free_at[line] = at + width;
        if (lane != LANE_SPEAKER)
            fprintf(g->f, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" stroke=\"%s\"/>\n", x,
                    x, lane == LANE_USER ? y : BAND_Y, y + line * MARK_H + 2,
                    lane == LANE_USER ? "none" : "#888888");
        fprintf(g->f, "<text x=\"%.1f\" y=\"%d\">", at + 2, y + line * MARK_H);
        put_text(g->f, m->label);
        fprintf(g->f, "</text>\n");
    }
}

static void put_axis(const struct page *g, size_t from, size_t to)
{
    int step = g->columns * PERIOD_MS > 60000 ? 10 : g->columns * PERIOD_MS > 20000 ? 2 : 1;
    for (size_t i = from; i < to; i++)
        if (i % (size_t)(step * 1000 / PERIOD_MS) == 0)
            fprintf(g->f,
                    "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" stroke=\"#dddddd\"/>"
                    "<text x=\"%.1f\" y=\"%d\" fill=\"#888888\">%zu s</text>\n",
                    place(g, i - from), place(g, i - from), USER_Y - WAVE_H, SPEAKER_Y + WAVE_H,
                    place(g, i - from) + 2, SPEAKER_Y + WAVE_H + 4, i * PERIOD_MS / 1000);
}

static void put_row(const struct page *g, size_t row)
{
    size_t from = row * g->columns, to = min_size(g->p->n, from + g->columns);
    fprintf(g->f, "<g transform=\"translate(0 %zu)\">\n", TOP + row * ROW_H);
    put_axis(g, from, to);
    fprintf(g->f,
            "<text x=\"4\" y=\"%d\">room</text><text x=\"4\" y=\"%d\">floor</text>"
            "<text x=\"4\" y=\"%d\">speaker</text>\n",
            USER_Y + 4, BAND_Y + 12, SPEAKER_Y + 4);
    put_wave(g, from, to, 0, USER_Y, "#3b6ea5");
    put_band(g, from, to);
    put_wave(g, from, to, 1, SPEAKER_Y, "#3f8f4f");
    put_lane(g, from, to, LANE_USER, USER_Y - WAVE_H - 4, 1);
    put_lane(g, from, to, LANE_EVENT, MARK_Y + 4, MARK_LINES);
    put_lane(g, from, to, LANE_SPEAKER, SAID_Y, 1);
    fprintf(g->f, "</g>\n");
}

static double wave_scale(const struct picture *p, int side)
{
    float peak = 0.01f;
    for (size_t i = 0; i < p->n; i++)
        peak = fmaxf(peak, fmaxf(p->columns[i].high[side], -p->columns[i].low[side]));
    return WAVE_H / (double)peak;
}

static void put_page(const struct page *g)
{
    size_t height = TOP + g->rows * ROW_H + 10;
    fprintf(g->f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %zu\" width=\"%d\" "
            "height=\"%zu\" font-family=\"sans-serif\" font-size=\"10\">\n"
            "<rect width=\"%d\" height=\"%zu\" fill=\"white\"/>\n<text x=\"4\" y=\"20\" "
            "font-size=\"14\">",
            WIDTH + 20, height, WIDTH + 20, height, WIDTH + 20, height);
    put_text(g->f, g->p->title);
    fprintf(g->f, "</text>\n");
    for (int s = 0; s < TURN_STATES; s++)
        fprintf(g->f,
                "<rect x=\"%d\" y=\"30\" width=\"12\" height=\"12\" fill=\"%s\"/><text x=\"%d\" "
                "y=\"40\">%s</text>\n",
                LEFT + s * 80, colours[s], LEFT + s * 80 + 16, turn_state_name(s));
    for (size_t row = 0; row < g->rows; row++)
        put_row(g, row);
    fprintf(g->f, "</svg>\n");
}

int picture_write(const struct picture *p, const char *path, struct problems *why)
{
    struct page g = {.p = p, .scale = {wave_scale(p, 0), wave_scale(p, 1)}};
    g.columns = max_size(min_size(p->n, ROW_MS / PERIOD_MS), (p->n + ROWS_MAX - 1) / ROWS_MAX);
    g.columns = max_size(g.columns, 1);
    g.rows = max_size(1, (p->n + g.columns - 1) / g.columns);
    g.f = fopen(path, "w");
    if (g.f == NULL)
        return problem_add(why, -EIO, "%s: cannot be written: %s", path, strerror(errno));
    put_page(&g);
    bool failed = ferror(g.f) != 0;
    if (fclose(g.f) != 0 || failed)
        return problem_add(why, -EIO, "%s: cannot be completed", path);
    return 0;
}
