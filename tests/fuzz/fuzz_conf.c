/*
 * tests/fuzz/fuzz_conf.c - any text as parley.conf.
 *
 * What is accepted keeps its promises: every number is in its range, texts are there and what
 * others ask of them holds, turn taking takes its options.
 */
#include <stdint.h>
#include <stdlib.h>

#include "daemon/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct conf *c)
{
    struct turn t;
    size_t n;
    const struct conf_key *k = conf_keys(&n);
    for (size_t i = 0; i < n; i++) {
        const char *at = (const char *)c + k[i].at;
        if (k[i].type == CONF_TEXT && *(char *const *)at == NULL)
            abort();
        if (k[i].type == CONF_TEXT && k[i].check != NULL &&
            k[i].check(*(char *const *)at, NULL) != 0)
            abort();
        if (k[i].type == CONF_INT && (*(const int *)at < k[i].min || *(const int *)at > k[i].max))
            abort();
    }
    if (turn_init(&t, &c->turn, 0, NULL) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf c;
    struct problems why = {0};
    if (conf_parse(&c, (const char *)data, size, "f", &why) == 0) {
        check(&c);
        if (why.n != 0)
            abort();
        conf_free(&c);
    } else if (why.n == 0) {
        abort();
    }
    problems_free(&why);
    return 0;
}
