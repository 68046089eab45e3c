/*
 * tests/unit/test_model_store.c - models come whole or not at all: good and hostile sources, kills
 * in the middle, switching, sums.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <archive.h>
#include <archive_entry.h>

#include "base/util.h"
#include "daemon/commands.h"
#include "daemon/model_store.h"
#include "daemon/sums.h"

#define SHAPE SOURCE_DIR "/tests/golden/heads"

static char dir[64], store[80];

static const char *in_dir(const char *name)
{
    static char path[4][256];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
    return path[turn];
}

static void run(const char *fmt, ...)
{
    char command[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(command, sizeof(command), fmt, args);
    va_end(args);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (status != 0)
        fail_msg("%s", command);
}

static int make_dir(void **unused)
{
    (void)unused;
    snprintf(dir, sizeof(dir), "/tmp/parley-store-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(store, sizeof(store), "%s/store", dir);
    run("cp -r %s %s/tiny", SHAPE, dir);
    return 0;
}

static int remove_dir(void **unused)
{
    (void)unused;
    run("rm -rf %s", dir);
    return 0;
}

static char *list(void)
{
    char *text = NULL;
    size_t n;
    struct problems why = {0};
    FILE *f = open_memstream(&text, &n);
    assert_int_equal(model_store_list(store, f, &why), 0);
    fclose(f);
    return text;
}

static void refused(int err, struct problems *why, const char *sentence)
{
    assert_true(err < 0);
    if (why->n == 0 || strstr(why->text[0], sentence) == NULL)
        fail_msg("'%s' instead of '%s'", why->n > 0 ? why->text[0] : "-", sentence);
    problems_free(why);
}

static void good(int err, struct problems *why)
{
    if (err < 0)
        fail_msg("%s", why->n > 0 ? why->text[0] : strerror(-err));
    assert_int_equal(why->n, 0);
}

static void test_add_use_verify(void **unused)
{
    (void)unused;
    struct problems why = {0};
    char target[256];
    good(model_store_add(store, in_dir("tiny/"), NULL, NULL, &why), &why);
    good(model_store_add(store, in_dir("tiny"), "second", NULL, &why), &why);
    char *text = list();
    assert_non_null(strstr(text, "  second "));
    assert_null(strstr(text, "* "));
    free(text);
    good(model_store_use(store, "tiny", &why), &why);
    good(model_store_use(store, "second", &why), &why);
    ssize_t n = readlink(in_dir("store/current"), target, sizeof(target));
    assert_int_equal(n, 6);
    assert_memory_equal(target, "second", 6);
    text = list();
    assert_non_null(strstr(text, "* second "));
    free(text);
    good(model_store_verify(store, NULL, NULL, &why), &why);
    good(model_store_verify(store, "tiny", NULL, &why), &why);
    refused(model_store_add(store, in_dir("tiny"), NULL, NULL, &why), &why,
            "there is a model of this name");
    refused(model_store_use(store, "third", &why), &why, "there is no model 'third'");
    refused(model_store_use(store, "../tiny", &why), &why, "expected letters, digits");
    refused(model_store_use(store, "current", &why), &why, "(not 'current')");
}

static void test_verify_finds(void **unused)
{
    (void)unused;
    struct problems why = {0};
    good(model_store_add(store, in_dir("tiny"), NULL, NULL, &why), &why);
    run("printf x | dd of=%s/tiny/config.json bs=1 seek=5 conv=notrunc status=none", store);
    run("rm %s/tiny/merges.txt; echo > %s/tiny/more", store, store);
    assert_int_equal(model_store_verify(store, "tiny", NULL, &why), -EBADMSG);
    assert_int_equal(why.n, 3);
    assert_non_null(strstr(why.text[0], "tiny: config.json: found SHA-256 "));
    assert_non_null(strstr(why.text[1], "merges.txt is missing"));
    assert_non_null(strstr(why.text[2], "more is not in SHA256SUMS"));
    problems_free(&why);
}

/* A source that brings sums is held to them. */
static void test_brought_sums(void **unused)
{
    (void)unused;
    struct problems why = {0};
    run("cd %s/tiny && sha256sum * > ../sums && mv ../sums SHA256SUMS", dir);
    good(model_store_add(store, in_dir("tiny"), NULL, NULL, &why), &why);
    run("echo >> %s/tiny/question.txt; echo >> %s/tiny/vocab.json", dir, dir);
    refused(model_store_add(store, in_dir("tiny"), "b", NULL, &why), &why, "is not in SHA256SUMS");
    run("rm %s/tiny/question.txt", dir);
    refused(model_store_add(store, in_dir("tiny"), "b", NULL, &why), &why, "found SHA-256");
    run("echo nonsense > %s/tiny/SHA256SUMS", dir);
    refused(model_store_add(store, in_dir("tiny"), "b", NULL, &why), &why,
            "SHA256SUMS:1: expected 64 hexadecimal digits");
    run("test \"$(ls -A %s)\" = tiny", store);
}

static void test_not_a_model(void **unused)
{
    (void)unused;
    struct problems why = {0};
    run("mkdir %s/empty; printf '{' > %s/tiny/config.json", dir, dir);
    assert_true(model_store_add(store, in_dir("empty"), NULL, NULL, &why) < 0);
    assert_true(why.n > 0);
    problems_free(&why);
    assert_true(model_store_add(store, in_dir("tiny"), NULL, NULL, &why) < 0);
    problems_free(&why);
    refused(model_store_add(store, in_dir("nothing"), NULL, NULL, &why), &why, "No such file");
    refused(model_store_add(store, "/dev/null", "x", NULL, &why), &why, "/dev/null");
    run("test -z \"$(ls -A %s)\"", store);
}

/* Checkpoints that the service could not answer with: refused before anything is copied, and as the
 * one that is used. */
static void test_unfit(void **unused)
{
    (void)unused;
    const struct {
        const char *spoil, *sentence;
    } cases[] = {
        {"rm vocab.json merges.txt tokenizer*", "vocab.json: no such file"},
        {"sed -i 's/<|im_end|>/<|im_gone|>/' tokenizer_config.json", "found no <|im_end|>"},
        {"echo no > end_of_turn.safetensors", "end_of_turn.safetensors"},
        {"sed -i 's/\"enable_audio_output\": true/\"enable_audio_output\": false/' config.json",
         "config.json: found a model without speech"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct problems why = {0};
        run("rm -rf %s %s/bad; cp -r %s %s/bad; cd %s/bad && %s", store, dir, SHAPE, dir, dir,
            cases[i].spoil);
        char *copied = NULL;
        size_t n;
        FILE *report = open_memstream(&copied, &n);
        refused(model_store_add(store, in_dir("bad"), NULL, report, &why), &why, cases[i].sentence);
        fclose(report);
        assert_string_equal(copied, "");
        free(copied);
        run("tar cf %s/bad.tar -C %s bad", dir, dir);
        refused(model_store_add(store, in_dir("bad.tar"), NULL, NULL, &why), &why,
                cases[i].sentence);
        run("test -z \"$(ls -A %s)\" && cp -r %s/bad %s/old", store, dir, store);
        refused(model_store_use(store, "old", &why), &why, cases[i].sentence);
        run("test ! -e %s/current", store);
    }
}

static void entry(struct archive *a, const char *path, int type, const char *link)
{
    struct archive_entry *e = archive_entry_new();
    archive_entry_set_pathname(e, path);
    archive_entry_set_filetype(e, (unsigned)type);
    archive_entry_set_perm(e, 0644);
    if (type == AE_IFLNK)
        archive_entry_set_symlink(e, link);
    else if (link != NULL)
        archive_entry_set_hardlink(e, link);
    else
        archive_entry_set_size(e, 2);
    assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
    if (link == NULL)
        archive_write_data(a, "{}", 2);
    archive_entry_free(e);
}

/* Archives that want to write elsewhere. */
static void test_hostile_tar(void **unused)
{
    (void)unused;
    const struct {
        const char *path;
        int type;
        const char *link, *sentence;
    } cases[] = {
        {"../evil", AE_IFREG, NULL, "found '../evil'"},
        {"/evil", AE_IFREG, NULL, "found '/evil'"},
        {"m/../../evil", AE_IFREG, NULL, "expected all files at the top or in one folder"},
        {"m/deep/evil", AE_IFREG, NULL, "expected all files at the top or in one folder"},
        {"other/evil", AE_IFREG, NULL, "expected all files at the top or in one folder"},
        {"m/evil", AE_IFLNK, "/etc/passwd", "which is no plain file"},
        {"m/evil", AE_IFREG, "/etc/passwd", "which is no plain file"},
        {"m/evil", AE_IFCHR, NULL, "which is no plain file"},
        {"m/..", AE_IFREG, NULL, "File exists"},
        {"m/e\nvil", AE_IFREG, NULL, "expected letters, digits"},
        {"m/config.json", AE_IFREG, NULL, "File exists"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct problems why = {0};
        struct archive *a = archive_write_new();
        archive_write_set_format_pax_restricted(a);
        assert_int_equal(archive_write_open_filename(a, in_dir("h.tar")), ARCHIVE_OK);
        entry(a, "m/config.json", AE_IFREG, NULL);
        entry(a, cases[i].path, cases[i].type, cases[i].link);
        archive_write_free(a);
        int err = model_store_add(store, in_dir("h.tar"), NULL, NULL, &why);
        refused(err, &why, cases[i].sentence);
        run("test -z \"$(ls -A %s)\"", store);
    }
}

static void test_tar(void **unused)
{
    (void)unused;
    struct problems why = {0};
    run("touch %s/tiny/.gitattributes", dir);
    run("cd %s && tar czf a.tar.gz tiny && tar cf b.tar -C tiny . && head -c 3000 a.tar.gz > "
        "c.tar.gz",
        dir);
    good(model_store_add(store, in_dir("a.tar.gz"), NULL, NULL, &why), &why);
    good(model_store_add(store, in_dir("b.tar"), NULL, NULL, &why), &why);
    assert_true(model_store_add(store, in_dir("c.tar.gz"), NULL, NULL, &why) < 0);
    assert_non_null(strstr(why.text[0], "c.tar.gz"));
    problems_free(&why);
    run("test \"$(ls -A %s | tr '\\n' ' ')\" = 'a b '", store);
    run("cmp %s/a/SHA256SUMS %s/b/SHA256SUMS", store, store);
    run("test ! -e %s/a/.gitattributes", store); /* hidden files are not the model's */
    good(model_store_verify(store, "a", NULL, &why), &why);
}

static void test_two_at_once(void **unused)
{
    (void)unused;
    struct problems why = {0};
    mkdir(store, 0755);
    int fd = open(store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    refused(model_store_add(store, in_dir("tiny"), NULL, NULL, &why), &why,
            "another process is adding");
    close(fd);
    good(model_store_add(store, in_dir("tiny"), NULL, NULL, &why), &why);
}

/* Killed at any moment: the model is whole or not there, the next add works, the rubbish goes. */
static void test_killed(void **unused)
{
    (void)unused;
    struct problems why = {0};
    int whole = 0;
    double began = clock_seconds();
    good(model_store_add(store, in_dir("tiny"), "first", NULL, &why), &why);
    double takes = clock_seconds() - began;
    for (int i = 0; i < 40; i++) {
        char name[16];
        snprintf(name, sizeof(name), "m%d", i);
        pid_t pid = fork();
        if (pid == 0)
            _exit(model_store_add(store, in_dir("tiny"), name, NULL, &why) < 0);
        usleep((useconds_t)(takes * 1e6 * i / 25));
        int status;
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
        if (model_store_verify(store, name, NULL, &why) == 0)
            whole++;
        else
            run("test ! -e %s/%s", store, name);
        problems_free(&why);
    }
    print_message("%d of 40 killed additions were complete; a whole one takes %.3f s\n", whole,
                  takes);
    good(model_store_add(store, in_dir("tiny"), "last", NULL, &why), &why);
    run("test -z \"$(ls -A %s | grep incoming)\"", store);
}

static int model(const char *command, ...)
{
    char *argv[8] = {(char *)"model", (char *)"--store", store, (char *)command};
    int argc = 4;
    va_list args;
    va_start(args, command);
    for (char *a; argc < 8 && (a = va_arg(args, char *)) != NULL;)
        argv[argc++] = a;
    va_end(args);
    extern int optind;
    optind = 0;
    return cmd_model(argc, argv);
}

/* `model add` tells the command that comes next, with the name that the model got. */
static void test_next_command(void **unused)
{
    (void)unused;
    int saved = dup(2);
    assert_non_null(freopen(in_dir("said"), "w", stderr));
    int first = model("add", in_dir("tiny/"), NULL);
    int second = model("add", in_dir("tiny"), "--name", "other", NULL);
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    assert_int_equal(first, 0);
    assert_int_equal(second, 0);
    run("grep -q '`parley model use tiny`' %s/said && grep -q '`parley model use other`' %s/said",
        dir, dir);
}

static void test_command(void **unused)
{
    (void)unused;
    assert_int_equal(model("add", in_dir("tiny"), NULL), 0);
    assert_int_equal(model("use", "tiny", NULL), 0);
    assert_int_equal(model("verify", NULL), 0);
    assert_int_equal(model("list", NULL), 0);
    assert_int_equal(model("use", "nothing", NULL), EXIT_BAD_INPUT);
    assert_int_equal(model("use", NULL), EXIT_BAD_INPUT);
    assert_int_equal(model("fly", NULL), EXIT_BAD_INPUT);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_add_use_verify), TEST(test_verify_finds), TEST(test_brought_sums),
        TEST(test_not_a_model),    TEST(test_hostile_tar),  TEST(test_tar),
        TEST(test_two_at_once),    TEST(test_killed),       TEST(test_command),
        TEST(test_unfit),          TEST(test_next_command),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
