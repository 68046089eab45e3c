/*
 * tests/fuzz/fuzz_control.c - any line as a control request.
 *
 * The answer is always one line of JSON that says ok or what is wrong; what reaches the command
 * keeps the limits of the table.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run(void *ctx, const struct control_request *r, json_t *reply, struct problems *why)
{
    const struct control_command *c = &control_commands()[r->cmd];
    (void)ctx;
    (void)reply;
    (void)why;
    if (r->cmd >= CONTROL_CMDS || (c->argument == CONTROL_TEXT) != (r->text != NULL))
        abort();
    if (c->argument == CONTROL_NUMBER && (r->number < c->min || r->number > c->max))
        abort();
    if (r->text != NULL && (strlen(r->text) == 0 || strlen(r->text) > CONTROL_TEXT_MAX))
        abort();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum control_cmd cmd;
    char *line = control_answer(run, NULL, (const char *)data, size, &cmd);
    if (line == NULL || strchr(line, '\n') != line + strlen(line) - 1)
        abort();
    json_t *reply = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    json_t *ok = json_object_get(reply, "ok");
    if (!json_is_boolean(ok) || json_is_true(ok) != (cmd != CONTROL_CMDS) ||
        json_is_true(ok) == json_is_string(json_object_get(reply, "error")))
        abort();
    json_decref(reply);
    free(line);
    return 0;
}
