/*
 * audio/apm.cc - webrtc-audio-processing behind a C interface.
 *
 * The extended filter is on: it takes a delay that is up to 120 ms too small, where the normal one
 * breaks down at 60 ms. The delay-agnostic mode stays off: after a jump it locks worse than the
 * extended filter alone. Suppression is the mildest: it is a person's voice that it would take
 * away when both talk. The high-pass filter stays off (audio/ear.c).
 */
#include "audio/apm.h"

#include <errno.h>

#include <new>

#include <webrtc/common.h>
#include <webrtc/modules/audio_processing/include/audio_processing.h>

enum { DELAY_MAX = 490 }; /* ms; the library takes no more */

struct apm {
    webrtc::AudioProcessing *ap;
    bool cancel;
};

static void set_up(webrtc::AudioProcessing *ap, const struct apm_opts *o)
{
    webrtc::EchoCancellation *echo = ap->echo_cancellation();
    echo->enable_drift_compensation(false);
    echo->set_suppression_level(webrtc::EchoCancellation::kLowSuppression);
    echo->Enable(o->cancel);
    ap->noise_suppression()->set_level(webrtc::NoiseSuppression::kModerate);
    ap->noise_suppression()->Enable(o->noise);
    webrtc::GainControl *gain = ap->gain_control();
    gain->set_mode(webrtc::GainControl::kAdaptiveDigital);
    gain->Enable(o->gain);
}

static void make(struct apm *a, const struct apm_opts *o)
{
    webrtc::Config config;
    config.Set<webrtc::ExtendedFilter>(new webrtc::ExtendedFilter(true));
    a->ap = webrtc::AudioProcessing::Create(config);
    if (a->ap == nullptr)
        throw std::bad_alloc();
    a->ap->Initialize(APM_RATE, APM_RATE, APM_RATE, webrtc::AudioProcessing::kMono,
                      webrtc::AudioProcessing::kMono, webrtc::AudioProcessing::kMono);
    set_up(a->ap, o);
}

int apm_open(struct apm **ret, const struct apm_opts *o)
{
    struct apm *a = new (std::nothrow) struct apm();
    if (a == nullptr)
        return -ENOMEM;
    a->cancel = o->cancel;
    try {
        make(a, o);
    } catch (const std::bad_alloc &) {
        apm_close(a);
        return -ENOMEM;
    }
    *ret = a;
    return 0;
}

void apm_period(struct apm *a, float *near, const float *far, int delay_ms)
{
    const webrtc::AudioProcessing::ChannelLayout mono = webrtc::AudioProcessing::kMono;
    int delay = delay_ms < 0 ? 0 : delay_ms > DELAY_MAX ? DELAY_MAX : delay_ms;
    if (a->cancel)
        a->ap->AnalyzeReverseStream(&far, APM_PERIOD, APM_RATE, mono);
    a->ap->set_stream_delay_ms(delay);
    a->ap->ProcessStream(&near, APM_PERIOD, APM_RATE, mono, APM_RATE, mono, &near);
}

void apm_close(struct apm *a)
{
    if (a == nullptr)
        return;
    delete a->ap;
    delete a;
}
