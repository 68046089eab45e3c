/* daemon/metrics.c - the table of what is written, and histograms. */
#include "daemon/metrics.h"

#include <dirent.h>
#include <stddef.h>
#include <unistd.h>

#include "base/util.h"

/* Upper bounds in seconds; around the 0.25 to 1 s that people notice they are dense. */
static const double bounds[METRICS_BUCKETS - 1] = {0.02, 0.05, 0.1, 0.15, 0.25, 0.4, 0.6,
                                                   0.8,  1,    1.5, 2.5,  5,    10};

void histogram_add(struct histogram *h, double seconds)
{
    int i = 0;
    while (i < METRICS_BUCKETS - 1 && seconds > bounds[i])
        i++;
    h->count[i]++;
    h->sum += seconds;
}

static const struct {
    const char *name, *help;
    size_t at;
} histograms[] = {
    {"endpoint_seconds", "End of speech to the end of the turn.",
     offsetof(struct metrics, endpoint)},
    {"first_sound_seconds", "End of speech to the first sound of the reply.",
     offsetof(struct metrics, first_sound)},
    {"stop_seconds", "Speech over a reply to its silence.", offsetof(struct metrics, stop)},
};

#define GAUGE(key, field, text)                                                                    \
    {                                                                                              \
        key, "gauge", text, offsetof(struct metrics, field)                                        \
    }
#define COUNTER(key, field, text)                                                                  \
    {                                                                                              \
        key, "counter", text, offsetof(struct metrics, field)                                      \
    }

static const struct {
    const char *name, *type, *help;
    size_t at;
} values[] = {
    GAUGE("ready", ready, "1 while questions can be answered."),
    GAUGE("muted", muted, "1 while the microphone is closed."),
    GAUGE("safe_mode", safe_mode, "1 after too many quick crashes."),
    GAUGE("uptime_seconds", uptime_s, "Since the process began."),
    COUNTER("starts_total", starts, "Starts of the process since it was installed."),
    GAUGE("memory_bytes", memory_bytes, "Resident memory."),
    GAUGE("descriptors", descriptors, "Open file descriptors."),
    COUNTER("turns_total", turns, "Turns of people."),
    COUNTER("replies_total", replies, "Replies that sounded."),
    COUNTER("interrupted_total", interrupted, "Replies cut off by speech."),
    COUNTER("resumed_total", resumed, "Replies held for something that was no speech."),
    COUNTER("failed_total", failed, "Turns that could not be answered."),
    COUNTER("capture_overruns_total", overruns, "Times microphone samples were lost."),
    COUNTER("playback_underruns_total", underruns, "Times the loudspeaker ran dry."),
    COUNTER("capture_lost_total", mic_lost, "Times the microphone went away."),
    COUNTER("playback_lost_total", speaker_lost, "Times the loudspeaker went away."),
    COUNTER("log_lines_lost_total", log_lost, "Lines of the event log that found no room."),
    GAUGE("erle_db", erle_db, "Echo return loss enhancement."),
    GAUGE("drift_ppm", drift_ppm, "Loudspeaker's clock against the microphone's."),
    GAUGE("playback_delay_seconds", delay_s, "Sound in the loudspeaker's device."),
    GAUGE("realtime_factor", rtf, "Time to make speech over its length."),
    GAUGE("context_used", context_used, "Positions of the model's context in use."),
    GAUGE("context_size", context, "Positions of the model's context."),
};

static void write_histogram(FILE *f, const char *name, const struct histogram *h)
{
    uint64_t sum = 0;
    for (int i = 0; i < METRICS_BUCKETS; i++) {
        sum += h->count[i];
        if (i < METRICS_BUCKETS - 1)
            fprintf(f, "parley_%s_bucket{le=\"%g\"} %llu\n", name, bounds[i],
                    (unsigned long long)sum);
        else
            fprintf(f, "parley_%s_bucket{le=\"+Inf\"} %llu\n", name, (unsigned long long)sum);
    }
    fprintf(f, "parley_%s_sum %.3f\nparley_%s_count %llu\n", name, h->sum, name,
            (unsigned long long)sum);
}

void metrics_write(FILE *f, const struct metrics *m)
{
    for (size_t i = 0; i < ARRAY_LEN(histograms); i++) {
        fprintf(f, "# HELP parley_%s %s\n# TYPE parley_%s histogram\n", histograms[i].name,
                histograms[i].help, histograms[i].name);
        write_histogram(f, histograms[i].name,
                        (const struct histogram *)((const char *)m + histograms[i].at));
    }
    for (size_t i = 0; i < ARRAY_LEN(values); i++)
        fprintf(f, "# HELP parley_%s %s\n# TYPE parley_%s %s\nparley_%s %.12g\n", values[i].name,
                values[i].help, values[i].name, values[i].type, values[i].name,
                *(const double *)((const char *)m + values[i].at));
}

double metrics_memory(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long long all = 0, resident = 0;
    if (f == NULL)
        return 0;
    if (fscanf(f, "%llu %llu", &all, &resident) != 2)
        resident = 0;
    fclose(f);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

double metrics_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    if (d == NULL)
        return 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.';
    closedir(d);
    return n - 1; /* not the one we look with */
}
