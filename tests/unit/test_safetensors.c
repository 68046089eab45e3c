/*
 * tests/unit/test_safetensors.c - the safetensors reader against headers that lie, and the writer.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "model/safetensors.h"
#include "tests/support/tiny.h"

/* A file image with this header and `data` bytes behind it. */
static unsigned char *image(const char *header, size_t data, size_t *n)
{
    size_t len = strlen(header);
    unsigned char *p = calloc(1, 8 + len + data + 1);
    for (int i = 0; i < 8; i++)
        p[i] = (unsigned char)(len >> 8 * i);
    memcpy(p + 8, header, len);
    *n = 8 + len + data;
    return p;
}

#define ONE(dtype, shape, offsets)                                                                 \
    "{\"x\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define TWO(a, b)                                                                                  \
    "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" a                                  \
    "},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" b "}}"

static const struct {
    const char *header;
    size_t data;
    const char *words[4];
} refused[] = {
    {"", 0, {"f.st", "header", "found nothing", "expected"}},
    {"   {}", 0, {"f.st", "header", "other text", "expected it to begin with {"}},
    {"{", 0, {"f.st", "header", "expected a JSON object"}},
    {"{\"x\":1,\"x\":2}", 0, {"f.st", "header", "duplicate"}},
    {"{\"x\xff\":1}", 0, {"f.st", "header", "expected a JSON object"}},
    {"{} {}", 0, {"f.st", "header", "end of file expected"}},
    {"{\"x\":1}", 0, {"f.st", "tensor x", "found no object", "expected dtype"}},
    {"{\"\":{}}", 0, {"f.st", "header", "tensor name", "expected a printable name"}},
    {"{\"a\\u001b[2J\":{}}", 0, {"f.st", "control characters", "expected a printable name"}},
    {"{\"__metadata__\":{\"a\":1}}", 0, {"f.st", "__metadata__", "expected an object of strings"}},
    {ONE("\"F31\"", "[1]", "[0,4]"), 4, {"tensor x", "dtype", "found F31", "expected F32"}},
    {ONE("7", "[1]", "[0,4]"), 4, {"tensor x", "dtype", "found no string", "expected F32"}},
    {ONE("\"F32\"", "1", "[0,4]"), 4, {"tensor x", "shape", "found no array", "expected"}},
    {ONE("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, {"tensor x", "shape", "longer array"}},
    {ONE("\"F32\"", "[-1]", "[0,4]"), 4, {"tensor x", "shape", "found -1", "expected 0 or more"}},
    {ONE("\"F32\"", "[1.5]", "[0,4]"), 4, {"tensor x", "shape", "fraction", "expected integers"}},
    {ONE("\"F32\"", "[99999999999999999999]", "[0,4]"), 4, {"header", "too big integer"}},
    {ONE("\"F32\"", "[4294967296,4294967296]", "[0,4]"),
     4,
     {"tensor x", "shape", "found [4294967296, 4294967296]", "expected a size that fits"}},
    {ONE("\"F32\"", "[4611686018427387904]", "[0,4]"), 4, {"tensor x", "shape", "fits 64 bits"}},
    {ONE("\"F32\"", "[1]", "[0]"), 4, {"tensor x", "data_offsets", "expected [begin, end]"}},
    {ONE("\"F32\"", "[1]", "{}"), 4, {"tensor x", "data_offsets", "found no array"}},
    {ONE("\"F32\"", "[1]", "[-4,0]"), 4, {"tensor x", "data_offsets", "found -4"}},
    {ONE("\"F32\"", "[1]", "[4,0]"), 4, {"tensor x", "data_offsets", "found [4, 0]", "4 bytes"}},
    {ONE("\"F32\"", "[1]", "[0,8]"), 4, {"tensor x", "data_offsets", "[0, 8]", "truncated"}},
    {ONE("\"F32\"", "[1]", "[0,9223372036854775807]"), 4, {"tensor x", "data_offsets", "found"}},
    {ONE("\"F32\"", "[3]", "[0,4]"), 4, {"tensor x", "found 4 bytes", "expected 12", "F32 [3]"}},
    {ONE("\"F32\"", "[1]", "[4,8]"), 8, {"tensor x", "begin at 4", "expected 0", "hole"}},
    {ONE("\"F32\"", "[1]", "[0,4]"), 6, {"f.st", "data", "found 6 bytes", "expected 4"}},
    {TWO("[0,8]", "[4,12]"), 12, {"tensor b", "begin at 4", "expected 8", "overlap"}},
    {TWO("[0,8]", "[12,20]"), 20, {"tensor b", "begin at 12", "expected 8", "hole"}},
    {TWO("[0,8]", "[0,8]"), 8, {"tensor b", "begin at 0", "expected 8", "overlap"}},
};

static void refuses_bad_headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        struct problems why = {0};
        struct st_header h;
        size_t n;
        unsigned char *p = image(refused[i].header, refused[i].data, &n);
        int err = st_parse(&h, p, n, n, "f.st", &why);
        if (err != -EINVAL || !problems_mention(&why, refused[i].words)) {
            print_message("row %zu: %d, %s\n", i, err, why.n ? why.text[0] : "no sentence");
            fail();
        }
        free(p);
        problems_free(&why);
    }
}

static void refuses_bad_lengths(void **state)
{
    (void)state;
    static const struct {
        uint64_t length;
        size_t n;
        const char *words[4];
    } rows[] = {
        {2, 7, {"f.st", "size", "found 7 bytes", "at least the 8"}},
        {3, 10, {"header length", "found 3 bytes", "at most the 2", "truncated"}},
        {(100u << 20) + 1, 10, {"header length", "found 104857601", "at most 104857600"}},
        {UINT64_MAX, 10, {"header length", "18446744073709551615", "at most 104857600"}},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct problems why = {0};
        struct st_header h;
        unsigned char p[10] = {0};
        memcpy(p + 8, "{}", 2);
        for (int k = 0; k < 8; k++)
            p[k] = (unsigned char)(rows[i].length >> 8 * k);
        assert_int_equal(st_parse(&h, p, rows[i].n, rows[i].n, "f.st", &why), -EINVAL);
        assert_true(problems_mention(&why, rows[i].words));
        problems_free(&why);
    }
}

static void accepts_what_the_format_allows(void **state)
{
    (void)state;
    static const char *const good[] = {
        "{}",
        "{}      ",
        "{\"__metadata__\":{\"format\":\"pt\"}}",
        "{\"empty\":{\"dtype\":\"I64\",\"shape\":[0,3],\"data_offsets\":[0,0]}}",
        "{\"b\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]},"
        "\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[1,3]},"
        "\"none\":{\"dtype\":\"BOOL\",\"shape\":[0],\"data_offsets\":[1,1]}}",
    };
    static const size_t data[] = {0, 0, 0, 0, 3};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        struct problems why = {0};
        struct st_header h;
        size_t n;
        unsigned char *p = image(good[i], data[i], &n);
        assert_int_equal(st_parse(&h, p, n, n, "f.st", &why), 0);
        assert_int_equal(why.n, 0);
        assert_int_equal(h.data_start, n - data[i]);
        st_header_free(&h);
        free(p);
    }
}

static const float floats[6] = {1, -2, 3.5f, 0, 1e-9f, 7};
static const int32_t ints[3] = {5, -6, 7};
static const uint16_t halves[3] = {0x3f80, 0x4000, 0xbf80};

static const struct st_entry entries[] = {
    {"z.half", ST_BF16, 1, {3}, halves},
    {"b.floats", ST_F32, 2, {2, 3}, floats},
    {"a.ints", ST_I32, 1, {3}, ints},
    {"nothing", ST_F32, 2, {0, 5}, NULL},
};

static void make_path(char path[64])
{
    snprintf(path, 64, "/tmp/parley-st-%d.safetensors", (int)getpid());
}

static void writes_what_it_reads(void **state)
{
    (void)state;
    struct problems why = {0};
    struct st_file *f;
    char path[64];
    make_path(path);
    assert_int_equal(safetensors_write(path, entries, ARRAY_LEN(entries), &why), 0);
    assert_int_equal(st_open(&f, path, &why), 0);
    assert_int_equal(f->header.n, ARRAY_LEN(entries));
    assert_int_equal(f->header.data_start % 8, 0);
    for (size_t i = 0; i < ARRAY_LEN(entries); i++) {
        const struct st_tensor *t = st_find(f, entries[i].name);
        assert_non_null(t);
        assert_int_equal(t->type, entries[i].type);
        assert_int_equal(t->ndim, entries[i].ndim);
        assert_memory_equal(t->shape, entries[i].shape, (size_t)t->ndim * sizeof(size_t));
        if (t->bytes > 0)
            assert_memory_equal(st_data(f, t), entries[i].data, t->bytes);
        assert_int_equal((uintptr_t)st_data(f, t) % st_type_size(t->type), 0);
    }
    assert_null(st_find(f, "a.int"));
    st_close(f);
    unlink(path);
}

static void writes_the_same_bytes(void **state)
{
    (void)state;
    struct st_entry other[ARRAY_LEN(entries)];
    char path[64], *a, *b;
    size_t na, nb;
    make_path(path);
    for (size_t i = 0; i < ARRAY_LEN(entries); i++)
        other[i] = entries[ARRAY_LEN(entries) - 1 - i];
    assert_int_equal(safetensors_write(path, entries, ARRAY_LEN(entries), NULL), 0);
    assert_int_equal(read_file(&a, &na, path, 1 << 20), 0);
    assert_int_equal(safetensors_write(path, other, ARRAY_LEN(entries), NULL), 0);
    assert_int_equal(read_file(&b, &nb, path, 1 << 20), 0);
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na);
    free(a);
    free(b);
    unlink(path);
}

static void refuses_to_write(void **state)
{
    (void)state;
    struct problems why = {0};
    char path[64];
    make_path(path);
    const struct st_entry twice[] = {entries[0], entries[1], entries[0]};
    assert_int_equal(safetensors_write(path, twice, 3, &why), -EINVAL);
    const struct st_entry huge[] = {{"x", ST_F32, 2, {SIZE_MAX / 2, 3}, floats}};
    assert_int_equal(safetensors_write(path, huge, 1, &why), -EINVAL);
    const struct st_entry name[] = {{"\xff", ST_F32, 1, {1}, floats}};
    assert_int_equal(safetensors_write(path, name, 1, &why), -EINVAL);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(safetensors_write("/tmp/no/such/place.st", entries, 1, &why), -EIO);
    assert_int_equal(why.n, 4);
    problems_free(&why);
}

/* A pipe (or /dev/null) gets the bytes and stays what it is. */
static void writes_into_a_pipe(void **state)
{
    (void)state;
    char path[64], got[8];
    struct stat st;
    make_path(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(safetensors_write(path, entries, ARRAY_LEN(entries), NULL), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
    assert_int_equal(read(fd, got, sizeof(got)), sizeof(got));
    assert_int_equal(got[7], 0); /* of the header's length */
    close(fd);
    unlink(path);
}

static void refuses_what_is_no_file(void **state)
{
    (void)state;
    struct problems why = {0};
    struct st_file *f;
    assert_int_equal(st_open(&f, "/tmp/no-such-file.safetensors", &why), -EINVAL);
    assert_int_equal(st_open(&f, "/tmp", &why), -EINVAL);
    assert_int_equal(why.n, 2);
    problems_free(&why);
    st_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_bad_headers),
        cmocka_unit_test(refuses_bad_lengths),
        cmocka_unit_test(accepts_what_the_format_allows),
        cmocka_unit_test(writes_what_it_reads),
        cmocka_unit_test(writes_the_same_bytes),
        cmocka_unit_test(refuses_to_write),
        cmocka_unit_test(writes_into_a_pipe),
        cmocka_unit_test(refuses_what_is_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
