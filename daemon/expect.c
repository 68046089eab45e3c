/* daemon/expect.c - expectations of a replay: patterns in order, and the log line by line. */
#include "daemon/expect.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/event_log.h"
#include "daemon/fields.h"
#include "model/json_text.h"

enum { LOG_BYTES_MAX = 64 << 20, CONTEXT_LINES = 2, DIFF_LINES = 6 };

struct line {
    char *text; /* without the "\n" */
    json_t *json;
    double ms;
};

struct expect {
    const struct scenario *s;
    struct line *lines;
    size_t n, cap;
    bool nothing; /* only the newest line is kept */
};

/* What bounds the time and the number of matches; all else is compared. */
static const char *const bounds[] = {"from_ms", "to_ms", "within_ms", "times"};

/* -- Patterns --------------------------------------------------------------------------------- */

static bool is_bound(const char *key)
{
    for (size_t i = 0; i < ARRAY_LEN(bounds); i++)
        if (strcmp(key, bounds[i]) == 0)
            return true;
    return false;
}

static bool known_action(const char *name)
{
    for (unsigned bit = 0; bit < TURN_ACTIONS; bit++)
        if (strcmp(turn_action_name(bit), name) == 0)
            return true;
    return false;
}

static int check_pattern(const struct scenario *s, const char *list, size_t index,
                         const json_t *pattern, struct problems *why)
{
    struct fields f;
    char path[96];
    int bound, compared = 0;
    snprintf(path, sizeof(path), "%s[%zu]", list, index);
    fields_begin(&f, s->path, path, pattern, why);
    for (size_t i = 0; i < ARRAY_LEN(bounds); i++)
        fields_int(&f, bounds[i], 0, SCENARIO_MS_MAX, &bound);
    const char *action = fields_text(&f, "action");
    if (action != NULL && !known_action(action))
        fields_wrong(&f, "action", "an action of daemon/turn.h");
    void *object = (void *)(uintptr_t)f.object; /* jansson's iterator is not const */
    for (void *i = json_object_iter(object); i != NULL; i = json_object_iter_next(object, i)) {
        const json_t *v = json_object_iter_value(i);
        compared += !is_bound(json_object_iter_key(i));
        if (json_is_object(v) || json_is_array(v) || json_is_null(v))
            fields_wrong(&f, json_object_iter_key(i), "a text, a number, true or false");
    }
    if (f.object != NULL && compared == 0)
        f.err =
            problem_add(why, -EINVAL,
                        "%s: %s: found no field of a log line, expected event, action or others",
                        s->path, path);
    if (strcmp(list, "count") == 0)
        fields_need(&f, "times");
    return f.err; /* any key is allowed: the log's fields are many */
}

static int check_list(const struct scenario *s, const char *name, const json_t *list,
                      struct problems *why)
{
    int err = 0;
    for (size_t i = 0; i < json_array_size(list); i++)
        if (check_pattern(s, name, i, json_array_get(list, i), why) < 0)
            err = -EINVAL;
    return err;
}

/* Names are equal; what was said only has to hold the text. */
static bool text_matches(const char *key, const char *found, const char *wanted)
{
    static const char *const names[] = {"event", "was", "state", "earcon", "stop"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(key, names[i]) == 0)
            return strcmp(found, wanted) == 0;
    return strcasestr(found, wanted) != NULL;
}

static bool field_matches(const json_t *line, const char *key, const json_t *wanted)
{
    if (strcmp(key, "action") == 0)
        return event_has_action(line, json_string_value(wanted));
    const json_t *found = json_object_get(line, key);
    if (json_is_string(wanted))
        return json_is_string(found) &&
               text_matches(key, json_string_value(found), json_string_value(wanted));
    if (json_is_number(wanted))
        return json_is_number(found) && json_number_value(found) == json_number_value(wanted);
    return found != NULL && json_equal(found, wanted);
}

/* All but the time. */
static bool looks_like(const struct line *l, const json_t *pattern)
{
    void *object = (void *)(uintptr_t)pattern;
    for (void *i = json_object_iter(object); i != NULL; i = json_object_iter_next(object, i)) {
        const char *key = json_object_iter_key(i);
        if (!is_bound(key) && !field_matches(l->json, key, json_object_iter_value(i)))
            return false;
    }
    return true;
}

static bool in_time(const struct line *l, const json_t *pattern, double since_ms)
{
    const json_t *from = json_object_get(pattern, "from_ms");
    const json_t *to = json_object_get(pattern, "to_ms");
    const json_t *within = json_object_get(pattern, "within_ms");
    return (from == NULL || l->ms >= json_number_value(from)) &&
           (to == NULL || l->ms <= json_number_value(to)) &&
           (within == NULL || l->ms - since_ms <= json_number_value(within));
}

/* -- Checking --------------------------------------------------------------------------------- */

int expect_open(struct expect **ret, const struct scenario *s, struct problems *why)
{
    int err = check_list(s, "expect", s->expect, why);
    if (check_list(s, "never", s->never, why) < 0 || check_list(s, "count", s->count, why) < 0)
        err = -EINVAL;
    if (err < 0)
        return err;
    struct expect *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return -ENOMEM;
    e->s = s;
    *ret = e;
    return 0;
}

static void forget_lines(struct expect *e)
{
    for (size_t i = 0; i < e->n; i++) {
        json_decref(e->lines[i].json);
        free(e->lines[i].text);
    }
    e->n = 0;
}

void expect_close(struct expect *e)
{
    if (e == NULL)
        return;
    forget_lines(e);
    free(e->lines);
    free(e);
}

void expect_nothing(struct expect *e)
{
    e->nothing = true;
}

int expect_line(struct expect *e, const char *line, size_t n)
{
    if (e->nothing)
        forget_lines(e);
    if (grow_array(&e->lines, &e->cap, e->n + 1, sizeof(*e->lines)) < 0)
        return -ENOMEM;
    struct line *l = &e->lines[e->n];
    l->text = strndup(line, n > 0 && line[n - 1] == '\n' ? n - 1 : n);
    json_error_t where;
    int err = l->text ? json_text_parse(&l->json, l->text, strlen(l->text), "log", &where, NULL)
                      : -ENOMEM;
    if (err < 0) {
        free(l->text);
        return err;
    }
    l->ms = json_number_value(json_object_get(l->json, "ms"));
    e->n++;
    return 0;
}

bool expect_newest(const struct expect *e, const char *name)
{
    if (e->n == 0)
        return false;
    const json_t *line = e->lines[e->n - 1].json;
    const char *event = json_string_value(json_object_get(line, "event"));
    return (event != NULL && strcmp(event, name) == 0) || event_has_action(line, name);
}

static void print_pattern(FILE *out, const char *sentence, const json_t *pattern)
{
    char *text = json_dumps(pattern, JSON_COMPACT);
    fprintf(out, "%s %s\n", sentence, text ? text : "?");
    free(text);
}

/* Lines that were like it, but at another time or before. */
static void say_near(const struct expect *e, const json_t *pattern, FILE *out)
{
    int said = 0;
    for (size_t i = 0; i < e->n && said < 3; i++)
        if (looks_like(&e->lines[i], pattern)) {
            fprintf(out, "    like it: %s\n", e->lines[i].text);
            said++;
        }
}

static bool check_order(const struct expect *e, FILE *out)
{
    bool good = true;
    size_t from = 0;
    double since = 0;
    for (size_t i = 0; i < json_array_size(e->s->expect); i++) {
        const json_t *pattern = json_array_get(e->s->expect, i);
        size_t at = from;
        while (at < e->n &&
               !(looks_like(&e->lines[at], pattern) && in_time(&e->lines[at], pattern, since)))
            at++;
        if (at < e->n) {
            from = at + 1;
            since = e->lines[at].ms;
            continue;
        }
        fprintf(out, "%s: expect[%zu]: not found after %.0f ms:", e->s->path, i, since);
        print_pattern(out, "", pattern);
        say_near(e, pattern, out);
        good = false;
    }
    return good;
}

static bool check_never(const struct expect *e, FILE *out)
{
    bool good = true;
    for (size_t i = 0; i < json_array_size(e->s->never); i++) {
        const json_t *pattern = json_array_get(e->s->never, i);
        for (size_t at = 0; at < e->n; at++) {
            if (!looks_like(&e->lines[at], pattern) || !in_time(&e->lines[at], pattern, 0))
                continue;
            fprintf(out, "%s: never[%zu]: found", e->s->path, i);
            print_pattern(out, "", pattern);
            fprintf(out, "    in %s\n", e->lines[at].text);
            good = false;
        }
    }
    return good;
}

static bool check_count(const struct expect *e, FILE *out)
{
    bool good = true;
    for (size_t i = 0; i < json_array_size(e->s->count); i++) {
        const json_t *pattern = json_array_get(e->s->count, i);
        int times = 0;
        for (size_t at = 0; at < e->n; at++)
            times += looks_like(&e->lines[at], pattern) && in_time(&e->lines[at], pattern, 0);
        if (times == json_integer_value(json_object_get(pattern, "times")))
            continue;
        fprintf(out, "%s: count[%zu]: found %d times:", e->s->path, i, times);
        print_pattern(out, "", pattern);
        say_near(e, pattern, out);
        good = false;
    }
    return good;
}

bool expect_fulfilled(struct expect *e, FILE *out)
{
    bool order = check_order(e, out), never = check_never(e, out);
    return check_count(e, out) && order && never;
}

/* -- The whole log ---------------------------------------------------------------------------- */

/* The line at *at, which is moved behind it; NULL at the end. */
static char *next_line(char **at)
{
    char *line = *at, *end = strchr(line, '\n');
    if (*line == '\0')
        return NULL;
    *at = end ? end + 1 : line + strlen(line);
    if (end != NULL)
        *end = '\0';
    return line;
}

/* From the first difference on: what was expected (-) and what was found (+). */
static void print_diff(const struct expect *e, char **expected, size_t n, size_t at, FILE *out)
{
    for (size_t i = at > CONTEXT_LINES ? at - CONTEXT_LINES : 0; i < at; i++)
        fprintf(out, "  %s\n", expected[i]);
    for (size_t i = at; i < n && i < at + DIFF_LINES; i++)
        fprintf(out, "- %s\n", expected[i]);
    for (size_t i = at; i < e->n && i < at + DIFF_LINES; i++)
        fprintf(out, "+ %s\n", e->lines[i].text);
}

static bool compare_lines(const struct expect *e, const char *path, char *text, FILE *out,
                          struct problems *why)
{
    char **lines = calloc(strlen(text) / 2 + 1, sizeof(*lines)), *line;
    size_t n = 0, at = 0;
    if (lines == NULL)
        return problem_add(why, -ENOMEM, "%s: no memory to read it", path) == 0;
    while ((line = next_line(&text)) != NULL)
        lines[n++] = line;
    while (at < n && at < e->n && strcmp(lines[at], e->lines[at].text) == 0)
        at++;
    bool same = at == n && at == e->n;
    if (!same) {
        fprintf(out, "%s: line %zu is another one (%zu lines expected, %zu found):\n", path, at + 2,
                n, e->n);
        print_diff(e, lines, n, at, out);
    }
    free(lines);
    return same;
}

bool expect_compare(struct expect *e, const char *path, const char *kind, FILE *out,
                    struct problems *why)
{
    char *text = NULL;
    size_t n = 0;
    int err = read_file(&text, &n, path, LOG_BYTES_MAX);
    if (err == -ENOENT) {
        fprintf(out, "%s: not there, so the log was not compared (--update writes it)\n", path);
        return true;
    }
    if (err < 0) {
        problem_add(why, err, "%s: cannot be read: %s", path, strerror(-err));
        return false;
    }
    char *at = text, *first = next_line(&at);
    json_t *head = NULL;
    json_error_t where;
    if (first != NULL &&
        json_text_parse(&head, first, strlen(first), path, &where, why) == -ENOMEM) {
        free(text);
        return false;
    }
    const char *made_on = json_string_value(json_object_get(head, "made_on"));
    bool good = true;
    if (made_on == NULL)
        good = problem_add(why, -EINVAL, "%s: found no {\"made_on\": ...} in its first line",
                           path) == 0;
    else if (strcmp(made_on, kind) != 0)
        fprintf(out, "%s: made on %s, this is %s: the log was not compared\n", path, made_on, kind);
    else
        good = compare_lines(e, path, at, out, why);
    json_decref(head);
    free(text);
    return good;
}

int expect_update(struct expect *e, const char *path, const char *kind, struct problems *why)
{
    FILE *f = fopen(path, "w");
    if (f == NULL)
        return problem_add(why, -EIO, "%s: cannot be written: %s", path, strerror(errno));
    fprintf(f, "{\"made_on\":\"%s\"}\n", kind);
    for (size_t i = 0; i < e->n; i++)
        fprintf(f, "%s\n", e->lines[i].text);
    bool failed = ferror(f) != 0;
    if (fclose(f) != 0 || failed)
        return problem_add(why, -EIO, "%s: cannot be completed", path);
    return 0;
}
