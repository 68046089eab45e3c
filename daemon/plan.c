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

static size_t host_available(void)
{
    double free_kb, limit, used, best = 0;
    if (read_number("/proc/meminfo", "MemAvailable:", &free_kb))
        best = free_kb * 1024;
    if (read_number("/sys/fs/cgroup/memory.max", "", &limit) &&
        read_number("/sys/fs/cgroup/memory.current", "", &used) && limit - used < best)
        best = limit - used;
    return best > 0 ? (size_t)best : 0;
}

size_t memory_anonymous(void)
{
    double kb = 0;
    return read_number("/proc/self/status", "RssAnon:", &kb) ? (size_t)kb * 1024 : 0;
}

struct plan_memory plan_memory(struct device *d)
{
    struct plan_memory m = {.types = ~0u};
    if (d != NULL && d->load != NULL) {
        m.device = d->name;
        m.types = d->load->types;
        if (d->load->memory(d, &m.total, &m.unused)) /* a file just written fills it, on paper */
            m.unused = max_size(m.unused, min_size(host_available(), m.total));
        return m;
    }
    m.unused = host_available();
    return m;
}

struct plan_row plan_sum(const struct model *m)
{
    const struct plan_row *row;
    struct plan_row sum = {.component = "sum"};
    int n = model_plan(m, &row);
    for (int i = 0; i < n; i++) {
        sum.tensors += row[i].tensors;
        sum.parameters += row[i].parameters;
        sum.mapped += row[i].mapped;
        sum.owned += row[i].owned;
    }
    return sum;
}

const char *types_text(char *buf, size_t size, unsigned types)
{
    size_t at = 0;
    snprintf(buf, size, "-");
    for (int t = 0; t < DT_COUNT; t++)
        if (types >> t & 1)
            at += (size_t)snprintf(buf + at, size - at, "%s%s", at ? "+" : "",
                                   dtype_name((enum dtype)t));
    return buf;
}

size_t plan_need(const struct plan_memory *where, const struct model *m, size_t caches)
{
    struct plan_row sum = plan_sum(m);
    size_t bytes = sum.mapped + sum.owned + caches;
    return where->device ? bytes + max_size(bytes / 100 * 3, 64000000) : bytes;
}

static void print_row(FILE *f, const struct plan_row *row)
{
    char types[32], mapped[32], owned[32];
    fprintf(f, "  %-16s %8zu %12.3fM %-10s %10s %10s\n", row->component, row->tensors,
            (double)row->parameters / 1e6,
            row->types ? types_text(types, sizeof(types), row->types) : "",
            bytes_text(mapped, sizeof(mapped), (double)row->mapped),
            bytes_text(owned, sizeof(owned), (double)row->owned));
}

static void print_memory(FILE *f, const struct plan_memory *where, size_t need)
{
    char needed[32], have[32], total[32];
    bytes_text(needed, sizeof(needed), (double)need);
    bytes_text(have, sizeof(have), (double)where->unused);
    if (where->device)
        fprintf(f, "  %-16s %s needed with 3 %% for kernels, %s free of %s on %s\n", "memory",
                needed, have, bytes_text(total, sizeof(total), (double)where->total),
                where->device);
    else
        fprintf(f, "  %-16s %s needed, %s free\n", "memory", needed, have);
}

void plan_print(FILE *f, const struct plan_memory *where, const struct model *m, size_t caches)
{
    const struct plan_row *row;
    struct plan_row sum = plan_sum(m);
    char need[32];
    int n = model_plan(m, &row);
    fprintf(f, "  %-16s %8s %13s %-10s %10s %10s\n", "component", "tensors", "parameters", "types",
            "in files", where->device ? "on device" : "in memory");
    for (int i = 0; i < n; i++)
        print_row(f, &row[i]);
    if (caches > 0)
        fprintf(f, "  %-16s %44s %10s\n", "caches, buffers", "",
                bytes_text(need, sizeof(need), (double)caches));
    sum.owned += caches;
    print_row(f, &sum);
    print_memory(f, where, plan_need(where, m, caches));
}

static int check_device(const struct plan_memory *where, const struct model *m, size_t caches,
                        struct problems *why)
{
    const struct plan_row *row;
    size_t needed = plan_need(where, m, caches);
    char need[32], have[32], total[32], types[32];
    int n = model_plan(m, &row);
    for (int i = 0; i < n; i++)
        if (row[i].owned > 0 && (row[i].types & ~where->types))
            return problem_add(why, -EINVAL,
                               "device %s: found %s weights in the %s, expected %s; the CPU "
                               "computes with them (--device cpu)",
                               where->device,
                               dtype_name((enum dtype)__builtin_ctz(row[i].types & ~where->types)),
                               row[i].component, types_text(types, sizeof(types), where->types));
    if (needed <= where->unused)
        return 0;
    return problem_add(
        why, -ENOMEM,
        "device %s: found %s of its %s free, expected %s for weights, caches and kernels; a "
        "smaller --context needs less",
        where->device, bytes_text(have, sizeof(have), (double)where->unused),
        bytes_text(total, sizeof(total), (double)where->total),
        bytes_text(need, sizeof(need), (double)needed));
}

int plan_check(const struct plan_memory *where, const struct model *m, size_t caches, bool paging,
               struct problems *why)
{
    struct plan_row sum = plan_sum(m);
    size_t owned = sum.owned + caches, available = where->unused;
    char need[32], have[32], weights[32], cache[32];
    if (where->device)
        return check_device(where, m, caches, why);
    if (available == 0)
        return 0;
    bytes_text(have, sizeof(have), (double)available);
    if (owned > available)
        return problem_add(why, -ENOMEM,
                           "memory: found %s free, expected %s: %s for weights that cannot stay in "
                           "their files, %s for caches and buffers; a smaller --context needs less",
                           have, bytes_text(need, sizeof(need), (double)owned),
                           bytes_text(weights, sizeof(weights), (double)sum.owned),
                           bytes_text(cache, sizeof(cache), (double)caches));
    if (sum.mapped + owned > available && !paging)
        return problem_add(why, -ENOMEM,
                           "memory: found %s free, expected %s to hold the weights; --paging reads "
                           "them from disk as they are used, which is slow",
                           have, bytes_text(need, sizeof(need), (double)(sum.mapped + owned)));
    return 0;
}

static void show_component(const struct load_meter *l, const struct model *m, int i)
{
    const struct plan_row *row;
    char size[32];
    model_plan(m, &row);
    if (row[i].mapped + row[i].owned == 0)
        return; /* tensors that are left alone */
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
    const struct plan_row sum = plan_sum(m);
    char size[32];
    if (l->out == NULL)
        return;
    int n = model_plan(m, &row);
    if (isatty(fileno(l->out))) {
        fprintf(l->out, "\r\033[K");
        if (err >= 0)
            fprintf(l->out, "loaded %s in %.1f s\n",
                    bytes_text(size, sizeof(size), (double)(sum.mapped + sum.owned)),
                    clock_seconds() - l->start);
        return;
    }
    for (; err >= 0 && l->row < n; l->row++)
        show_component(l, m, l->row);
}
