/*
 * tests/fuzz/fuzz_safetensors.c - any bytes as a .safetensors file, and as an index.
 *
 * What is accepted must hold what the header promises: tensors inside the file, in order, covering
 * the data exactly.
 */
#include <stdlib.h>
#include <string.h>

#include "model/checkpoint.h"
#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct st_header *h, size_t size)
{
    size_t at = 0;
    for (size_t i = 0; i < h->n; i++) {
        const struct st_tensor *t = &h->tensors[i];
        if (t->begin != at || t->bytes != t->count * st_type_size(t->type) ||
            strlen(t->name) > ST_NAME_MAX)
            abort();
        at += t->bytes;
    }
    if (h->data_start + at != size)
        abort();
}

static int each(void *arg, const char *tensor, const char *shard)
{
    (void)arg;
    if (strchr(shard, '/') || strlen(tensor) > ST_NAME_MAX)
        abort();
    return 0;
}

/* The first byte: 0 = an index; 1 = the rest is a header, whose length goes in front and whose
 * data (as much as the second byte says) is not there but in the size; else a file as it is. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct problems why = {0};
    struct st_header h;
    if (size < 2)
        return 0;
    if (data[0] == 0) {
        checkpoint_parse_index((const char *)data + 1, size - 1, "index", &why, each, NULL);
    } else if (data[0] == 1) {
        size_t n = size - 2, total = n + 8 + data[1];
        unsigned char *file = malloc(n + 8);
        for (int i = 0; i < 8; i++)
            file[i] = (unsigned char)((uint64_t)n >> 8 * i);
        memcpy(file + 8, data + 2, n);
        if (st_parse(&h, file, n + 8, total, "file", &why) == 0) {
            check(&h, total);
            st_header_free(&h);
        }
        free(file);
    } else if (st_parse(&h, data + 1, size - 1, size - 1, "file", &why) == 0) {
        check(&h, size - 1);
        st_header_free(&h);
    }
    problems_free(&why);
    return 0;
}
