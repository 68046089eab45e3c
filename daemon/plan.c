/* daemon/plan.c - figures of memory and loading for people; see plan.h. */
#include "daemon/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

const char *bytes_text(char *buf, size_t size, double bytes)
{
    static const char *const unit[] = {"B", "kB", "MB", "GB", "TB"};
    size_t u = 0;
    while (bytes >= 1000 && u + 1 < ARRAY_LEN(unit)) {
        bytes /= 1000;
        u++;
    }
    snprintf(buf, size, u == 0 ? "%.0f %s" : "%.2f %s", bytes, unit[u]);
    return buf;
}

/* The number behind `key` in a file of "key value" lines, or the file's only number for key "". */
static bool read_number(const char *path, const char *key, double *value)
{
    char *text = NULL;
    size_t len;
    if (read_file(&text, &len, path, 1 << 20) < 0)
        return false;
    const char *at = strstr(text, key);
    char *end = NULL;
    if (at != NULL)
        *value = strtod(at + strlen(key), &end);
    bool found = at != NULL && end != at + strlen(key);
    free(text);
    return found;
}

size_t memory_available(void)
{
    double free_kb, limit, used, best = 0;
    if (read_number("/proc/meminfo", "MemAvailable:", &free_kb))
        best = free_kb * 1024;
    if (read_number("/sys/fs/cgroup/memory.max", "", &limit) &&
        read_number("/sys/fs/cgroup/memory.current", "", &used) && limit - used < best)
        best = limit - used;
    return best > 0 ? (size_t)best : 0;
}

static void sum_rows(const struct model *m, size_t *mapped, size_t *owned)
{
    const struct plan_row *row;
    int n = model_plan(m, &row);
    *mapped = *owned = 0;
    for (int i = 0; i < n; i++) {
        *mapped += row[i].mapped;
        *owned += row[i].owned;
    }
}

void plan_print(FILE *f, const struct model *m, size_t caches)
{
    const struct plan_row *row;
    char mapped_text[32], owned_text[32];
    size_t mapped, owned;
    int n = model_plan(m, &row);
    fprintf(f, "%-18s %8s %10s %5s %11s %11s\n", "memory plan", "tensors", "parameters", "type",
            "in files", "in memory");
    for (int i = 0; i < n; i++)
        fprintf(f, "  %-16s %8zu %9.2fM %5s %11s %11s\n", row[i].component, row[i].tensors,
                (double)row[i].parameters / 1e6, dtype_name(row[i].type),
                bytes_text(mapped_text, sizeof(mapped_text), (double)row[i].mapped),
                bytes_text(owned_text, sizeof(owned_text), (double)row[i].owned));
    sum_rows(m, &mapped, &owned);
    fprintf(f, "  %-16s %8s %10s %5s %11s %11s\n", "caches, buffers", "", "", "", "",
            bytes_text(owned_text, sizeof(owned_text), (double)caches));
    fprintf(f, "  %-16s %8s %10s %5s %11s %11s\n", "sum", "", "", "",
            bytes_text(mapped_text, sizeof(mapped_text), (double)mapped),
            bytes_text(owned_text, sizeof(owned_text), (double)(owned + caches)));
    fprintf(f, "  %-16s %38s\n", "free now",
            bytes_text(owned_text, sizeof(owned_text), (double)memory_available()));
}

int plan_check(const struct model *m, size_t caches, bool paging, struct problems *why)
{
    size_t mapped, owned, available = memory_available();
    char need[32], have[32];
    sum_rows(m, &mapped, &owned);
    if (available == 0)
        return 0;
    bytes_text(have, sizeof(have), (double)available);
    if (owned + caches > available)
        return problem_add(why, -ENOMEM,
                           "memory: found %s free, expected %s for caches and buffers; a smaller "
                           "--context needs less",
                           have, bytes_text(need, sizeof(need), (double)(owned + caches)));
    if (mapped + owned + caches > available && !paging)
        return problem_add(why, -ENOMEM,
                           "memory: found %s free, expected %s to hold the weights; --paging reads "
                           "them from disk as they are used, which is slow",
                           have, bytes_text(need, sizeof(need), (double)(mapped + owned + caches)));
    return 0;
}

static void show_component(const struct load_meter *l, const struct model *m, int i)
{
    const struct plan_row *row;
    char size[32];
    model_plan(m, &row);
    fprintf(l->out, "loaded %s: %s, %.1f s\n", row[i].component,
            bytes_text(size, sizeof(size), (double)(row[i].mapped + row[i].owned)),
            clock_seconds() - l->start);
}

void load_meter_show(struct load_meter *l, const struct model *m, const struct load_progress *p)
{
    if (l->out == NULL)
        return;
    double now = clock_seconds(), rate = (double)p->done / (now - l->start + 1e-9);
    if (isatty(fileno(l->out))) {
        char done[32], total[32], per_second[32];
        if (now - l->shown < 0.1)
            return;
        l->shown = now;
        fprintf(l->out, "\r\033[Kloading %s: %s of %s, %s/s, %.0f s left", p->component,
                bytes_text(done, sizeof(done), (double)p->done),
                bytes_text(total, sizeof(total), (double)p->total),
                bytes_text(per_second, sizeof(per_second), rate),
                (double)(p->total - p->done) / (rate + 1));
        fflush(l->out);
    } else {
        for (; l->row < p->row; l->row++)
            show_component(l, m, l->row);
    }
}

void load_meter_end(struct load_meter *l, const struct model *m, int err)
{
    const struct plan_row *row;
    if (l->out == NULL)
        return;
    int n = model_plan(m, &row);
    if (isatty(fileno(l->out)))
        fprintf(l->out, "\r\033[K");
    for (; err >= 0 && l->row < n; l->row++)
        show_component(l, m, l->row);
}
