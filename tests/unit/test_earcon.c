/*
 * tests/unit/test_earcon.c - every earcon can be heard, is short, never loud, and is like no other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "daemon/earcon.h"

enum { RATE = 48000 };

static float peak(const struct earcons *e, int k)
{
    float most = 0;
    for (size_t i = 0; i < e->n[k]; i++)
        most = fmaxf(most, fabsf(e->pcm[k][i]));
    return most;
}

static void test_all(void **unused)
{
    (void)unused;
    struct earcons e;
    assert_int_equal(earcons_open(&e, RATE), 0);
    for (int k = TURN_EARCON_NONE + 1; k < TURN_EARCONS; k++) {
        if (e.n[k] < RATE / 20 || e.n[k] > RATE || peak(&e, k) < 0.02f || peak(&e, k) > 0.1f)
            fail_msg("%s: %zu samples, peak %g", turn_earcon_name((enum turn_earcon)k), e.n[k],
                     (double)peak(&e, k));
        for (int other = TURN_EARCON_NONE + 1; other < k; other++)
            assert_false(e.n[k] == e.n[other] &&
                         memcmp(e.pcm[k], e.pcm[other], e.n[k] * sizeof(float)) == 0);
    }
    assert_true(peak(&e, TURN_EARCON_HEARD) < 0.5f * peak(&e, TURN_EARCON_AWAKE)); /* a nod */
    earcons_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
