/*
 * tests/live/test_realtime.c - the audio threads keep the rules of real time: nothing allocated,
 * locked, written or opened in the player, in joining, in the threads themselves. And the
 * interposer that says so does notice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "audio/audio.h"
#include "tests/live/interpose.h"

enum { RATE = 48000, PERIOD = 480 };

/* First, since it makes counts that are not to be zero. */
static void test_notices(void **unused)
{
    (void)unused;
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    void *volatile p;
    char byte;
    FILE *log = fopen("/dev/null", "w");
    assert_non_null(log);
    setvbuf(log, NULL, _IONBF, 0); /* whose buffer would be one allocation more */
    long before = interpose_count(REALTIME_OURS);
    p = malloc(10); /* outside: free of charge */
    free(p);
    assert_int_equal(interpose_count(REALTIME_OURS), before);
    audio_realtime_region(REALTIME_OURS);
    p = malloc(10);
    free(p);
    pthread_mutex_lock(&lock);
    pthread_mutex_unlock(&lock);
    int fd = open("/dev/null", O_RDWR);
    ssize_t n = write(fd, "x", 1) + read(fd, &byte, 1);
    fprintf(log, "%d\n", fd);
    close(fd);
    audio_realtime_region(REALTIME_LIBRARY);
    p = malloc(10);
    audio_realtime_region(REALTIME_NONE);
    free(p);
    fclose(log);
    assert_int_equal(n, 1);
    assert_int_equal(interpose_count(REALTIME_OURS), before + 8);
    assert_true(interpose_count(REALTIME_LIBRARY) >= 1);
}

static void fill(struct player *p, uint32_t answer)
{
    static float pcm[12000];
    for (int i = 0; i < 12000; i++)
        pcm[i] = 0.3f * (float)sin(i * 0.1);
    assert_int_equal(player_begin(p, answer), 0);
    assert_int_equal(player_write(p, answer, pcm, 12000), 12000);
}

static void test_player(void **unused)
{
    (void)unused;
    static float out[PERIOD], ear[PERIOD];
    struct player *p = NULL;
    assert_int_equal(player_open(&p, NULL, NULL), 0);
    long before = interpose_count(REALTIME_OURS);
    for (uint32_t answer = 1; answer < 10; answer++) {
        fill(p, answer);
        for (int i = 0; i < 40; i++) {
            if (i % 10 == 1)
                player_play(p, answer);
            if (i % 10 == 6)
                player_hold(p);
            if (i == 33)
                player_drop(p, answer);
            if (i % 7 == 0)
                player_earcon(p, ear, PERIOD);
            player_volume(p, (float)(i % 3) / 2.0f);
            audio_realtime_region(REALTIME_OURS);
            player_pull(p, out, PERIOD);
            audio_realtime_region(REALTIME_NONE);
        }
    }
    assert_int_equal(interpose_count(REALTIME_OURS), before);
    player_close(p);
}

/* Both threads, with devices that need no hardware and, as for a file that is written, must leave
 * the work to others. */
static void test_threads(void **unused)
{
    (void)unused;
    static float mic[PERIOD], far[PERIOD];
    const char *const devices[][2] = {{"null", "null"},
                                      {"wav:" SOURCE_DIR "/etc/demo/sum.wav",
                                       "wav:" BINARY_DIR "/test_realtime.wav"}};
    for (int d = 0; d < 2; d++) {
        struct player *p = NULL;
        struct audio *a = NULL;
        assert_int_equal(player_open(&p, NULL, NULL), 0);
        const struct audio_opts o = {.capture = devices[d][0],
                                     .playback = devices[d][1],
                                     .player = p};
        assert_int_equal(audio_open(&a, &o, NULL), 0);
        long before = interpose_count(REALTIME_OURS), library = interpose_count(REALTIME_LIBRARY);
        long entered = interpose_entered(REALTIME_OURS);
        fill(p, 1);
        player_end(p, 1);
        player_play(p, 1);
        for (int i = 0; i < 100; i++)
            assert_true(audio_read(a, mic, far) >= 0);
        audio_close(a);
        player_close(p);
        assert_true(interpose_entered(REALTIME_OURS) - entered > 150);
        assert_int_equal(interpose_count(REALTIME_OURS), before);
        assert_int_equal(interpose_count(REALTIME_LIBRARY), library); /* these are ours, too */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_notices),
                                       cmocka_unit_test(test_player),
                                       cmocka_unit_test(test_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
