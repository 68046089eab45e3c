/* daemon/history.c - a bounded JSON array, written whole after each turn if it is to last. */
#include "daemon/history.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "daemon/state_file.h"

enum { ENTRY_MAX = 16384 }; /* bytes of text */

static int write_file(const struct history *h)
{
    if (h->dir == NULL)
        return 0;
    return state_write_json(h->dir, HISTORY_FILE, 0600, json_pack("{s:O}", "turns", h->turns));
}

/* Only what history_add could have written. */
static int take_old(struct history *h, const json_t *turns)
{
    size_t i;
    json_t *turn;
    json_array_foreach((json_t *)turns, i, turn)
    {
        const char *text = json_string_value(json_object_get(turn, "text"));
        if (!json_is_integer(json_object_get(turn, "at")) ||
            !json_is_string(json_object_get(turn, "who")) || text == NULL ||
            strlen(text) > ENTRY_MAX)
            return -EPROTO;
        if (json_array_append(h->turns, turn) < 0)
            return -ENOMEM;
    }
    while (json_array_size(h->turns) > h->most)
        json_array_remove(h->turns, 0);
    return 0;
}

int history_open(struct history *h, size_t most, const char *dir, struct problems *why)
{
    int err = 0;
    *h = (struct history){.turns = json_array(), .most = most, .dir = dir};
    if (h->turns == NULL)
        return -ENOMEM;
    json_t *old = dir != NULL ? state_read_json(dir, HISTORY_FILE, &err) : NULL;
    if (old != NULL)
        err = take_old(h, json_object_get(old, "turns"));
    json_decref(old);
    if (err == 0 || err == -ENOENT)
        return 0;
    bool spoilt = err == -EPROTO; /* else it may be read another time, and is not written over */
    problem_add(why, err, "%s/%s: %s; the history begins anew%s", dir, HISTORY_FILE, strerror(-err),
                spoilt ? "" : ", in memory only");
    json_array_clear(h->turns);
    if (!spoilt)
        h->dir = NULL;
    return 0;
}

int history_add(struct history *h, int64_t at, const char *who, const char *text)
{
    size_t n = strlen(text);
    json_t *turn = json_pack("{s:I, s:s, s:s%}", "at", (json_int_t)at, "who", who, "text", text,
                             n < ENTRY_MAX ? n : (size_t)ENTRY_MAX);
    if (turn == NULL) /* cut within a character, or memory is short */
        return -ENOMEM;
    if (json_array_append_new(h->turns, turn) < 0)
        return -ENOMEM;
    while (json_array_size(h->turns) > h->most)
        json_array_remove(h->turns, 0);
    return write_file(h);
}

int history_forget(struct history *h, const char *state)
{
    json_array_clear(h->turns);
    return state_remove(state, HISTORY_FILE);
}

void history_close(struct history *h)
{
    json_decref(h->turns);
    *h = (struct history){0};
}
