/*
 * daemon/metrics.h - what parleyd measures of itself, written as Prometheus text.
 *
 * Latencies are histograms, so that nothing is lost between two looks; the rest are counters and
 * gauges that the caller fills in before writing. All counters start at 0 with the process, but
 * `starts`, which the state directory keeps.
 *
 * Threads: one owner.
 */
#ifndef PARLEY_DAEMON_METRICS_H
#define PARLEY_DAEMON_METRICS_H

#include <stdint.h>
#include <stdio.h>

enum { METRICS_BUCKETS = 14 };

struct histogram {
    uint64_t count[METRICS_BUCKETS]; /* not cumulative; the last one is for everything beyond */
    double sum;                      /* seconds */
};

struct metrics {
    struct histogram endpoint;    /* end of speech to the end of the turn */
    struct histogram first_sound; /* end of speech to the first sample of the reply */
    struct histogram stop;        /* somebody speaks over a reply to its silence */
    double ready, muted, safe_mode, uptime_s, starts, memory_bytes, descriptors;
    double turns, replies, interrupted, resumed, failed;
    double overruns, underruns, mic_lost, speaker_lost, log_lost;
    double erle_db, drift_ppm, delay_s, rtf, context_used, context;
};

void histogram_add(struct histogram *h, double seconds);

void metrics_write(FILE *f, const struct metrics *m);

/* Resident memory of this process in bytes, and its open descriptors; 0 when /proc cannot be
 * read. */
double metrics_memory(void);
double metrics_descriptors(void);

#endif
