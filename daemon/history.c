/* daemon/history.c - a bounded JSON array, written whole after each turn if it is to last. */
#include "daemon/history.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "daemon/state_file.h"

enum {
    ENTRY_MAX = 16384,  /* bytes of text */
    ENTRY_MORE = 32,    /* what a list and a file's line breaks add to a turn */
    BYTES_MAX = 4 << 20 /* of all turns as a file: far below what state_read_json takes */
};

#define CUT_MARK "..."

/* Bytes of a turn as ASCII, wherever it is written. */
static size_t bytes_of(const json_t *turn)
{
    return json_dumpb(turn, NULL, 0, JSON_COMPACT | JSON_ENSURE_ASCII) + ENTRY_MORE;
}

static void drop_oldest(struct history *h)
{
    h->bytes -= bytes_of(json_array_get(h->turns, 0));
    json_array_remove(h->turns, 0);
}

/* The newest turn, which becomes the list's whatever happens. */
static int append(struct history *h, json_t *turn)
{
    size_t n = bytes_of(turn);
    if (json_array_append_new(h->turns, turn) < 0)
        return -ENOMEM;
    h->bytes += n;
    while (json_array_size(h->turns) > h->most || h->bytes > BYTES_MAX)
        drop_oldest(h);
    return 0;
}

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
        if (append(h, json_incref(turn)) < 0)
            return -ENOMEM;
    }
    return 0;
}

static void clear(struct history *h)
{
    json_array_clear(h->turns);
    h->bytes = 0;
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
    clear(h);
    if (!spoilt)
        h->dir = NULL;
    return 0;
}

int history_add(struct history *h, int64_t at, const char *who, const char *text)
{
    size_t n = strlen(text), most = ENTRY_MAX - strlen(CUT_MARK);
    bool cut = n > ENTRY_MAX;
    while (cut && (n > most || ((unsigned char)text[n] & 0xc0) == 0x80)) /* between characters */
        n--;
    json_t *turn = json_pack("{s:I, s:s, s:s%+}", "at", (json_int_t)at, "who", who, "text", text, n,
                             cut ? CUT_MARK : "");
    if (turn == NULL) /* no UTF-8, or memory is short */
        return -ENOMEM;
    int err = append(h, turn);
    return err < 0 ? err : write_file(h);
}

json_t *history_newest(const struct history *h, size_t most, size_t *left_out)
{
    json_t *turns = json_array();
    size_t i = json_array_size(h->turns), n;
    for (size_t bytes = 0; i > 0; i--, bytes += n) {
        json_t *turn = json_array_get(h->turns, i - 1);
        n = bytes_of(turn);
        if (bytes + n > most || json_array_insert(turns, 0, turn) < 0)
            break;
    }
    *left_out = i;
    return turns;
}

int history_forget(struct history *h, const char *state)
{
    clear(h);
    return state_remove(state, HISTORY_FILE);
}

void history_close(struct history *h)
{
    json_decref(h->turns);
    *h = (struct history){0};
}
