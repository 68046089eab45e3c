/*
 * tests/unit/test_audio.c - live audio without a sound card: recordings, and a device whose faults
 * the test decides on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/capability.h>
#include <math.h>
#include <sndfile.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "audio/audio.h"
#include "audio/device.h"
#include "base/thread.h"
#include "base/util.h"

enum { RATE = 48000, PERIOD = 480 };

/* What other libraries forget when they are loaded (JACK's client by PortAudio) is not ours. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#define NOT_OURS(call)                                                                             \
    do {                                                                                           \
        __lsan_disable();                                                                          \
        call;                                                                                      \
        __lsan_enable();                                                                           \
    } while (0)
#else
#define NOT_OURS(call) call
#endif

static struct player *open_player(void)
{
    struct player *p = NULL;
    assert_int_equal(player_open(&p, NULL, NULL), 0);
    return p;
}

/* ---- a device with faults ---- */

static struct fault {
    _Atomic int transfer; /* result of transfers from now on; 0 = sound */
    _Atomic int open;     /* result of opening; 0 = works */
    _Atomic int opened, closed;
    _Atomic int once; /* result of one transfer */
} faults[2];

struct fault_device {
    struct audio_device_opts o;
    struct fault *f;
    int64_t next_ns;
};

static int fault_open(void **device, const struct audio_device_opts *o, char *text,
                      struct problems *why)
{
    struct fault *f = &faults[o->direction];
    int err = atomic_load(&f->open);
    if (err < 0)
        return problem_add(why, err, "fault: not today");
    struct fault_device *d = calloc(1, sizeof(*d));
    assert_non_null(d);
    d->o = *o;
    d->f = f;
    atomic_fetch_add(&f->opened, 1);
    snprintf(text, AUDIO_TEXT, "fault:%s, %d Hz", o->name, o->rate);
    *device = d;
    return 0;
}

static int fault_transfer(void *device, float *pcm, size_t n, struct audio_moment *m)
{
    struct fault_device *d = device;
    int result = atomic_load(&d->f->transfer);
    audio_pace(&d->next_ns, &d->o, n, m);
    if (result == 0)
        result = atomic_exchange(&d->f->once, 0);
    for (size_t i = 0; i < n && d->o.direction == AUDIO_CAPTURE; i++)
        pcm[i] = 0.25f;
    return result;
}

static void fault_close(void *device)
{
    struct fault_device *d = device;
    atomic_fetch_add(&d->f->closed, 1);
    free(d);
}

static const struct audio_device_kind fault_kind = {.prefix = "fault",
                                                    .open = fault_open,
                                                    .transfer = fault_transfer,
                                                    .close = fault_close};
static const struct audio_device_kind *const kinds[] = {&fault_kind, &audio_null, NULL};

static struct audio *open_fault(struct player *p)
{
    struct audio *a = NULL;
    const struct audio_opts o = {.capture = "fault:mic", .playback = "fault:speaker", .player = p};
    memset(faults, 0, sizeof(faults));
    assert_int_equal(audio_open_kinds(&a, &o, kinds, NULL), 0);
    return a;
}

/* Reads until one of `wanted` is told or so many periods have passed; what was told. *level: the
 * mean of the last period's microphone. */
static int read_until(struct audio *a, int wanted, int periods, float *level)
{
    static float mic[PERIOD], far[PERIOD];
    int told = 0;
    for (int i = 0; i < periods && (told & wanted) == 0; i++) {
        int set = audio_read(a, mic, far);
        assert_true(set >= 0);
        told |= set;
    }
    *level = 0.0f;
    for (int i = 0; i < PERIOD; i++)
        *level += mic[i] / PERIOD;
    return told;
}

/* What a busy machine makes at any time. */
enum { BUSY = AUDIO_OVERRUN | AUDIO_MOVED };

/* For what must come, however busy the machine is. */
enum { PATIENCE_S = 20 };

/* Reads until one of `wanted` is told. */
static void await(struct audio *a, int wanted, float *level)
{
    double until = clock_seconds() + PATIENCE_S;
    int told = 0;
    while ((told & wanted) == 0 && clock_seconds() < until)
        told = read_until(a, wanted, 1, level);
    assert_int_equal(told & wanted, wanted);
}

/* Reads until the microphone's level is `wanted`; neither side may be lost or found meanwhile. */
static void await_level(struct audio *a, float wanted)
{
    double until = clock_seconds() + PATIENCE_S;
    float level = -1.0f;
    while (fabsf(level - wanted) > 1e-3f && clock_seconds() < until)
        assert_int_equal(read_until(a, 0, 1, &level) & ~BUSY, 0);
    assert_true(fabsf(level - wanted) <= 1e-3f);
}

static void await_count(struct audio *a, const _Atomic int *count, int wanted)
{
    double until = clock_seconds() + PATIENCE_S;
    float level;
    while (atomic_load(count) < wanted && clock_seconds() < until)
        assert_int_equal(read_until(a, 0, 1, &level) & ~BUSY, 0);
    assert_int_equal(atomic_load(count), wanted);
}

static void test_options(void **unused)
{
    (void)unused;
    struct player *p = open_player();
    const struct {
        struct audio_opts o;
        int err;
        const char *says;
    } bad[] = {
        {{.capture = "oss:dsp", .playback = "null", .player = p}, -EINVAL, "oss:dsp"},
        {{.capture = "null", .playback = "what", .player = p}, -EINVAL, "what"},
        {{.capture = "null", .playback = "null"}, -EINVAL, "player"},
        {{.capture = "null", .playback = "null", .player = p, .rate = 44123}, -EINVAL, "44123"},
        {{.capture = "null", .playback = "null", .player = p, .rate = -1}, -EINVAL, "-1"},
        {{.capture = "wav:", .playback = "null", .player = p}, -EINVAL, "wav:PATH"},
        {{.capture = "wav:no/such.wav", .playback = "null", .player = p}, -ENODEV, "no/such.wav"},
        {{.capture = "null", .playback = "wav:no/such/x.wav", .player = p}, -EIO, "no/such/x.wav"},
        {{.capture = "alsa:default", .playback = "null", .player = p, .unpaced = true},
         -EINVAL,
         "unpaced"},
        {{.capture = "alsa:no_such_pcm", .playback = "null", .player = p}, -ENODEV, "there are"},
        {{.capture = "portaudio:no such", .playback = "null", .player = p}, -ENODEV, "there are"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct problems why = {0};
        struct audio *a = NULL;
        int err = 0;
        NOT_OURS(err = audio_open(&a, &bad[i].o, &why));
        assert_int_equal(err, bad[i].err);
        assert_null(a);
        assert_int_equal(why.n, 1);
        assert_non_null(strstr(why.text[0], bad[i].says));
        problems_free(&why);
    }
    audio_close(NULL);
    player_close(p);
}

/* A recording in, a file out, as fast as it goes: sample by sample what it should be. */
static void test_unpaced(void **unused)
{
    (void)unused;
    static float tone[RATE / 2], mic[PERIOD], far[PERIOD], all[100 * PERIOD], out[200 * PERIOD];
    const char *path = BINARY_DIR "/test_audio_in.wav", *written = BINARY_DIR "/test_audio_out.wav";
    SF_INFO info = {.samplerate = RATE, .channels = 1, .format = SF_FORMAT_WAV | SF_FORMAT_FLOAT};
    for (int i = 0; i < RATE / 2; i++)
        tone[i] = 0.5f * (float)sin(i * 0.05);
    SNDFILE *f = sf_open(path, SFM_WRITE, &info);
    assert_non_null(f);
    sf_write_float(f, tone, RATE / 2);
    sf_close(f);

    struct player *p = open_player();
    struct audio *a = NULL;
    struct audio_stats s;
    char in_name[512], out_name[512];
    snprintf(in_name, sizeof(in_name), "wav:%s", path);
    snprintf(out_name, sizeof(out_name), "wav:%s", written);
    const struct audio_opts o = {.capture = in_name,
                                 .playback = out_name,
                                 .player = p,
                                 .unpaced = true};
    assert_int_equal(audio_open(&a, &o, NULL), 0);
    assert_int_equal(player_begin(p, 1), 0);
    assert_int_equal(player_write(p, 1, tone, 12000), 12000);
    player_end(p, 1);
    player_play(p, 1);
    for (int i = 0; i < 100; i++) {
        int set = audio_read(a, mic, far);
        assert_int_equal(set, i == 50 ? AUDIO_END : 0);
        memcpy(all + i * PERIOD, far, sizeof(far));
        for (int k = 0; k < PERIOD; k++)
            assert_true(mic[k] == (i < 50 ? tone[i * PERIOD + k] : 0.0f));
    }
    audio_wake(a);
    assert_int_equal(audio_read(a, mic, far), -EINTR);
    audio_stats(a, &s);
    assert_true(s.play_delay == 0 && s.overruns == 0);
    assert_non_null(strstr(s.capture, "test_audio_in.wav"));
    audio_close(a);
    player_close(p);

    f = sf_open(written, SFM_READ, &info);
    assert_non_null(f);
    assert_int_equal(info.frames, 100 * PERIOD);
    assert_int_equal(sf_read_float(f, out, 100 * PERIOD), 100 * PERIOD);
    sf_close(f);
    for (int i = 0; i < 100 * PERIOD; i++)
        assert_true(fabsf(out[i] - all[i]) < 1e-4f);
    assert_true(fabsf(all[20 * PERIOD]) > 0.0f);
}

/* Paced: 10 ms a period; the far end is what is played, some periods later. */
static void test_paced(void **unused)
{
    (void)unused;
    static float mic[PERIOD], far[PERIOD], pcm[24000];
    struct player *p = open_player();
    struct audio *a = NULL;
    struct audio_stats s;
    const struct audio_opts o = {.capture = "null", .playback = "null", .player = p};
    for (int i = 0; i < 24000; i++)
        pcm[i] = 0.5f;
    assert_int_equal(audio_open(&a, &o, NULL), 0);
    for (int i = 0; i < 20; i++)
        assert_int_equal(audio_read(a, mic, far) & ~BUSY, 0);
    assert_int_equal(player_begin(p, 1), 0);
    assert_int_equal(player_write(p, 1, pcm, 24000), 24000);
    player_end(p, 1);
    player_play(p, 1);
    double began = clock_seconds();
    int first = -1, loud = 0;
    for (int i = 0; i < 150; i++) {
        assert_true(audio_read(a, mic, far) >= 0);
        loud += far[PERIOD / 2] > 0.4f;
        first = first < 0 && far[PERIOD / 2] > 0.4f ? i : first;
    }
    double took = clock_seconds() - began;
    audio_stats(a, &s);
    print_message("150 periods in %.3f s, far end %d periods late, delay %d samples\n", took, first,
                  (int)s.play_delay);
    assert_true(took > 1.0 && took < 15.0); /* the machine may be busy */
    assert_in_range(first, 1, 100);         /* 5 or so, as above */
    assert_in_range(loud, 30, 101);         /* 100, unless the threads are kept waiting */
    assert_in_range(s.play_delay, 400, 4800);
    audio_close(a);
    player_close(p);
}

static void *wake_soon(void *arg)
{
    audio_sleep_until_ns(audio_now_ns() + 30000000);
    audio_wake(arg);
    return NULL;
}

static void test_wake(void **unused)
{
    (void)unused;
    static float mic[PERIOD], far[PERIOD];
    struct player *p = open_player();
    struct audio *a = open_fault(p);
    struct thread t;
    int result = 0;
    assert_int_equal(thread_start(&t, "wake", wake_soon, a), 0);
    for (int i = 0; i < 1000 && result != -EINTR; i++)
        result = audio_read(a, mic, far);
    assert_int_equal(result, -EINTR);
    assert_true(audio_read(a, mic, far) >= 0);
    thread_join(&t);
    audio_close(a);
    player_close(p);
}

/* Either device goes away, cannot be opened for a while, and comes back. */
static void test_unplug(void **unused)
{
    (void)unused;
    struct player *p = open_player();
    struct audio *a = open_fault(p);
    struct audio_stats s;
    float level;
    const int lost[] = {AUDIO_MIC_LOST, AUDIO_SPEAKER_LOST};
    const int back[] = {AUDIO_MIC_BACK, AUDIO_SPEAKER_BACK};
    await_level(a, 0.25f);
    for (int d = 0; d < 2; d++) {
        atomic_store(&faults[d].open, -ENODEV);
        atomic_store(&faults[d].transfer, -ENODEV);
        await(a, lost[d], &level);
        double began = clock_seconds();
        assert_int_equal(read_until(a, lost[d] | back[d], 30, &level) & ~BUSY, 0); /* told once */
        double took = clock_seconds() - began;
        assert_true(took > 0.15); /* at the pace of time */
        assert_true(d == 1 || level == 0.0f);
        atomic_store(&faults[d].transfer, 0);
        atomic_store(&faults[d].open, 0);
        await(a, back[d], &level);
        await_level(a, 0.25f);
        assert_int_equal(atomic_load(&faults[d].opened), 2);
    }
    audio_stats(a, &s);
    assert_true(s.mic_lost == 1 && s.speaker_lost == 1);
    audio_close(a);
    for (int d = 0; d < 2; d++)
        assert_int_equal(atomic_load(&faults[d].closed), atomic_load(&faults[d].opened));
    player_close(p);
}

/* A device that stands still without a word is gone, too. */
static void test_stall(void **unused)
{
    (void)unused;
    struct player *p = open_player();
    struct audio *a = open_fault(p);
    float level;
    read_until(a, 0, 20, &level);
    atomic_store(&faults[AUDIO_CAPTURE].transfer, -EAGAIN);
    await(a, AUDIO_MIC_LOST, &level);
    atomic_store(&faults[AUDIO_CAPTURE].transfer, 0);
    await(a, AUDIO_MIC_BACK, &level);
    audio_close(a);
    player_close(p);
}

static void test_xruns(void **unused)
{
    (void)unused;
    struct player *p = open_player();
    struct audio *a = open_fault(p);
    struct audio_stats s;
    float level;
    read_until(a, 0, 30, &level);
    for (int i = 0; i < 5; i++) {
        atomic_store(&faults[0].once, AUDIO_XRUN);
        atomic_store(&faults[1].once, AUDIO_XRUN);
        double until = clock_seconds() + PATIENCE_S;
        while (atomic_load(&faults[0].once) + atomic_load(&faults[1].once) > 0 &&
               clock_seconds() < until)
            assert_int_equal(read_until(a, 0, 5, &level) & (AUDIO_MIC_LOST | AUDIO_SPEAKER_LOST),
                             0);
    }
    read_until(a, 0, 20, &level); /* they are counted behind the transfer */
    audio_stats(a, &s);

    assert_true(s.overruns == 5 && s.underruns == 5 && s.mic_lost == 0);
    audio_close(a);
    player_close(p);
}

static void test_mute(void **unused)
{
    (void)unused;
    struct player *p = open_player();
    struct audio *a = open_fault(p);
    await_level(a, 0.25f);
    audio_mute(a, true);
    await_count(a, &faults[AUDIO_CAPTURE].closed, 1);
    await_level(a, 0.0f);
    assert_int_equal(atomic_load(&faults[AUDIO_PLAYBACK].closed), 0);
    audio_mute(a, false);
    await_level(a, 0.25f);
    audio_close(a);
    player_close(p);
}

/* Muted from the start the microphone is not opened, and not missed; both come with unmuting. */
static void test_muted_at_start(void **unused)
{
    (void)unused;
    struct player *p = open_player();
    struct fault *mic = &faults[AUDIO_CAPTURE];
    const struct audio_opts o = {.capture = "fault:mic",
                                 .playback = "fault:speaker",
                                 .player = p,
                                 .muted = true};
    for (int missing = 0; missing < 2; missing++) {
        struct audio *a = NULL;
        struct audio_stats s;
        float level;
        memset(faults, 0, sizeof(faults));
        atomic_store(&mic->open, missing ? -ENODEV : 0);
        assert_int_equal(audio_open_kinds(&a, &o, kinds, NULL), 0);
        assert_int_equal(read_until(a, AUDIO_MIC_LOST, 30, &level) & ~BUSY, 0);
        audio_stats(a, &s);
        assert_string_equal(s.capture, "closed");
        assert_int_equal(atomic_load(&mic->opened), 0);
        audio_mute(a, false);
        if (missing) {
            await(a, AUDIO_MIC_LOST, &level);
            atomic_store(&mic->open, 0);
            await(a, AUDIO_MIC_BACK, &level);
        }
        await_level(a, 0.25f);
        audio_stats(a, &s);
        assert_string_equal(s.capture, "fault:mic, 48000 Hz");
        assert_int_equal(s.mic_lost, missing);
        audio_close(a);
    }
    player_close(p);
}

/* What happens to a microphone while it is muted is told when it is not. */
static void test_mute_lost(void **unused)
{
    (void)unused;
    struct player *p = open_player();
    struct audio *a = open_fault(p);
    struct fault *mic = &faults[AUDIO_CAPTURE];
    float level;
    read_until(a, 0, 20, &level);
    audio_mute(a, true);
    await_count(a, &mic->closed, 1);
    atomic_store(&mic->open, -ENODEV); /* unplugged while muted */
    assert_int_equal(read_until(a, AUDIO_MIC_LOST, 10, &level) & ~BUSY, 0);
    audio_mute(a, false);
    await(a, AUDIO_MIC_LOST, &level);
    audio_mute(a, true);
    assert_int_equal(read_until(a, AUDIO_MIC_BACK, 10, &level) & ~BUSY, 0);
    atomic_store(&mic->open, 0); /* ... and plugged in again */
    audio_mute(a, false);
    await(a, AUDIO_MIC_BACK, &level);
    audio_close(a);
    player_close(p);
}

/* A device that asks to be opened again is lost only if it cannot be. */
static void test_stale(void **unused)
{
    (void)unused;
    struct player *p = open_player();
    struct audio *a = open_fault(p);
    struct fault *mic = &faults[AUDIO_CAPTURE];
    float level;
    read_until(a, 0, 20, &level);
    atomic_store(&mic->once, -ESTALE);
    await_count(a, &mic->opened, 2);
    await_level(a, 0.25f);
    atomic_store(&mic->open, -ENODEV);
    atomic_store(&mic->once, -ESTALE);
    await(a, AUDIO_MIC_LOST, &level);
    atomic_store(&mic->open, 0);
    await(a, AUDIO_MIC_BACK, &level);
    audio_close(a);
    player_close(p);
}

/* The calling thread with or without the right to real-time priority. */
static void may_have_realtime(bool may)
{
    static struct rlimit limit;
    static uint32_t effective;
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    assert_int_equal(syscall(SYS_capget, &head, data), 0);
    if (!may) {
        assert_int_equal(getrlimit(RLIMIT_RTPRIO, &limit), 0);
        effective = data[0].effective;
    }
    data[0].effective = may ? effective : effective & ~(1u << CAP_SYS_NICE);
    const struct rlimit now = {may ? limit.rlim_cur : 0, limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_RTPRIO, &now), 0);
    assert_int_equal(syscall(SYS_capset, &head, data), 0);
}

/* Asked for and not granted, real-time priority is a note; the devices are open. */
static void test_no_realtime(void **unused)
{
    (void)unused;
    struct player *p = open_player();
    struct problems why = {0};
    struct audio *a = NULL;
    struct audio_opts o = {.capture = "null", .playback = "null", .player = p};
    may_have_realtime(false);
    assert_int_equal(audio_open(&a, &o, &why), 0);
    assert_int_equal(why.n, 0);
    audio_close(a);
    o.realtime = true;
    assert_int_equal(audio_open(&a, &o, &why), 0);
    assert_int_equal(why.n, 1);
    assert_non_null(strstr(why.text[0], "real-time priority is refused"));
    audio_close(a);
    may_have_realtime(true);
    problems_free(&why);
    player_close(p);
}

static void test_list(void **unused)
{
    (void)unused;
    char text[65536] = "";
    FILE *out = fmemopen(text, sizeof(text) - 1, "w");
    assert_non_null(out);
    int err = 0;
    NOT_OURS(err = audio_list(out));
    assert_int_equal(err, 0);
    fclose(out);
    assert_non_null(strstr(text, "microphones:"));
    assert_non_null(strstr(text, "loudspeakers:"));
    assert_non_null(strstr(text, "null\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),   cmocka_unit_test(test_unpaced),
        cmocka_unit_test(test_paced),     cmocka_unit_test(test_wake),
        cmocka_unit_test(test_unplug),    cmocka_unit_test(test_stall),
        cmocka_unit_test(test_xruns),     cmocka_unit_test(test_mute),
        cmocka_unit_test(test_mute_lost), cmocka_unit_test(test_muted_at_start),
        cmocka_unit_test(test_stale),     cmocka_unit_test(test_no_realtime),
        cmocka_unit_test(test_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
