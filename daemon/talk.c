/*
 * daemon/talk.c - `parley talk`: a conversation through microphone and loudspeaker, on a terminal.
 *
 * The command's own thread reads keys and event lines and draws; live.h does the rest.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "base/util.h"
#include "daemon/commands.h"
#include "daemon/installed.h"
#include "daemon/live.h"
#include "daemon/screen.h"

#define MODEL "parley-mini"

enum { DRAW_MS = 100, PATH_LEN = 4096 };

static const char help[] =
    "usage: parley talk [options]\n"
    "\n"
    "Talks. Speak at any time, also while it speaks. Keys: space stops it, m mutes and unmutes "
    "the\n"
    "microphone, q ends.\n"
    "\n"
    "  --model DIR         checkpoint directory (default: parley-mini)\n"
    "  --capture DEV       microphone: alsa:NAME, portaudio:NAME, wav:FILE, null\n"
    "                      (default alsa:default)\n"
    "  --playback DEV      loudspeaker, likewise\n"
    "  --list-devices      the names that can be opened\n"
    "  --system T          system text\n"
    "  --speaker NAME      voice\n"
    "  --volume X          amplitude factor of the voice (default 1)\n"
    "  --no-echo-cancel    the devices have an echo canceller of their own\n"
    "  --noise             suppress steady noise\n"
    "  --gain              automatic gain of the microphone\n"
    "  --delay-ms N        from loudspeaker to microphone beyond what the devices report\n"
    "  --end-ms N          silence that ends your turn (default 600)\n"
    "  --confirm-ms N      so much speech interrupts it (default 650)\n"
    "  --tell-cut          the model is told where it was interrupted\n"
    "  --device D          auto, cpu, cuda ... (default auto)\n"
    "  --threads N         threads of the CPU device (default: one per processor)\n"
    "  --context N         positions the conversation may take (default 8192)\n"
    "  --seed N            of the random draws (default 0)\n"
    "  --vad FILE          the voice detector's weights (default: those that come with Parley)\n"
    "  --events FILE       what happens, one JSON object a line, with the words\n"
    "  --plain             lines instead of meters, also on a terminal\n"
    "  --quiet             no plan, no progress\n";

struct talk {
    struct session_opts session;
    struct live_opts live;
    struct turn_opts turn;
    const char *events;
    char model[PATH_LEN], vad[PATH_LEN]; /* unless others are named */
    bool plain, quiet, list, help;
};

enum option_id {
    OPT_MODEL = 256,
    OPT_CAPTURE,
    OPT_PLAYBACK,
    OPT_LIST,
    OPT_SYSTEM,
    OPT_SPEAKER,
    OPT_VOLUME,
    OPT_NO_ECHO_CANCEL,
    OPT_NOISE,
    OPT_GAIN,
    OPT_DELAY,
    OPT_END,
    OPT_CONFIRM,
    OPT_TELL_CUT,
    OPT_DEVICE,
    OPT_THREADS,
    OPT_CONTEXT,
    OPT_SEED,
    OPT_VAD,
    OPT_EVENTS,
    OPT_PLAIN,
    OPT_QUIET,
    OPT_HELP
};

static const struct option options[] = {
    {"model", required_argument, NULL, OPT_MODEL},
    {"capture", required_argument, NULL, OPT_CAPTURE},
    {"playback", required_argument, NULL, OPT_PLAYBACK},
    {"list-devices", no_argument, NULL, OPT_LIST},
    {"system", required_argument, NULL, OPT_SYSTEM},
    {"speaker", required_argument, NULL, OPT_SPEAKER},
    {"volume", required_argument, NULL, OPT_VOLUME},
    {"no-echo-cancel", no_argument, NULL, OPT_NO_ECHO_CANCEL},
    {"noise", no_argument, NULL, OPT_NOISE},
    {"gain", no_argument, NULL, OPT_GAIN},
    {"delay-ms", required_argument, NULL, OPT_DELAY},
    {"end-ms", required_argument, NULL, OPT_END},
    {"confirm-ms", required_argument, NULL, OPT_CONFIRM},
    {"tell-cut", no_argument, NULL, OPT_TELL_CUT},
    {"device", required_argument, NULL, OPT_DEVICE},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"context", required_argument, NULL, OPT_CONTEXT},
    {"seed", required_argument, NULL, OPT_SEED},
    {"vad", required_argument, NULL, OPT_VAD},
    {"events", required_argument, NULL, OPT_EVENTS},
    {"plain", no_argument, NULL, OPT_PLAIN},
    {"quiet", no_argument, NULL, OPT_QUIET},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

/* Options whose value is a whole number. */
static bool take_number(struct talk *t, int id, const char *text)
{
    long n = 0;
    switch (id) {
    case OPT_DELAY:
        if (!option_long("--delay-ms", text, -500, 500, &n))
            return false;
        t->live.delay_ms = (int)n;
        return true;
    case OPT_END:
        if (!option_long("--end-ms", text, 100, 5000, &n))
            return false;
        t->turn.end_ms = (int)n;
        return true;
    case OPT_CONFIRM:
        if (!option_long("--confirm-ms", text, 1, 5000, &n))
            return false;
        t->turn.confirm_ms = (int)n;
        return true;
    case OPT_THREADS:
        if (!option_long("--threads", text, 1, 1024, &n))
            return false;
        t->session.threads = (int)n;
        return true;
    case OPT_CONTEXT:
        if (!option_long("--context", text, 64, 1 << 20, &n))
            return false;
        t->session.context = (int)n;
        return true;
    default:
        if (!option_long("--seed", text, 0, INT64_MAX, &n))
            return false;
        t->session.seed = (uint64_t)n;
        return true;
    }
}

static bool take_flag(struct talk *t, int id)
{
    switch (id) {
    case OPT_LIST:
        return t->list = true;
    case OPT_NO_ECHO_CANCEL:
        return t->live.no_cancel = true;
    case OPT_NOISE:
        return t->live.noise = true;
    case OPT_GAIN:
        return t->live.gain = true;
    case OPT_TELL_CUT:
        return t->live.tell_cut = true;
    case OPT_PLAIN:
        return t->plain = true;
    case OPT_QUIET:
        return t->quiet = true;
    case OPT_HELP:
        return t->help = true;
    default:
        return false;
    }
}

static bool take(struct talk *t, int id, char *value)
{
    double x;
    switch (id) {
    case OPT_MODEL:
        t->session.dir = value;
        return true;
    case OPT_CAPTURE:
        t->live.capture = value;
        return true;
    case OPT_PLAYBACK:
        t->live.playback = value;
        return true;
    case OPT_SYSTEM:
        t->live.system = value;
        return true;
    case OPT_SPEAKER:
        t->session.speaker = value;
        return true;
    case OPT_VOLUME:
        if (!option_double("--volume", value, 0.001, 4, &x))
            return false;
        t->live.volume = (float)x;
        return true;
    case OPT_DEVICE:
        t->session.device = value;
        return true;
    case OPT_VAD:
        t->live.vad = value;
        return true;
    case OPT_EVENTS:
        t->events = value;
        return true;
    default:
        return value != NULL ? take_number(t, id, value) : take_flag(t, id);
    }
}

static bool parse(struct talk *t, int argc, char **argv)
{
    int id;
    *t = (struct talk){.session = {.temperature = -1}};
    while ((id = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (id == '?' || !take(t, id, optarg))
            return false;
    if (optind == argc)
        return true;
    fprintf(stderr, "parley: talk: found '%s', expected an option\n", argv[optind]);
    return false;
}

/* -- The terminal ----------------------------------------------------------------------------- */

struct terminal {
    bool keys; /* standard input gives single keys */
    struct termios before;
    int signals; /* signalfd of what ends the conversation */
    sigset_t blocked;
};

static int open_terminal(struct terminal *t)
{
    *t = (struct terminal){.keys = isatty(STDIN_FILENO)};
    sigemptyset(&t->blocked);
    sigaddset(&t->blocked, SIGINT);
    sigaddset(&t->blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &t->blocked, NULL);
    t->signals = signalfd(-1, &t->blocked, SFD_CLOEXEC | SFD_NONBLOCK);
    if (t->keys && tcgetattr(STDIN_FILENO, &t->before) == 0) {
        struct termios raw = t->before;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    } else {
        t->keys = false;
    }
    return t->signals < 0 ? -errno : 0;
}

/* From here on a second Ctrl-C ends the program at once. */
static void close_terminal(struct terminal *t)
{
    struct signalfd_siginfo info;
    if (t->keys)
        tcsetattr(STDIN_FILENO, TCSANOW, &t->before);
    while (t->signals >= 0 && read(t->signals, &info, sizeof(info)) > 0)
        ;
    if (t->signals >= 0)
        close(t->signals);
    sigprocmask(SIG_UNBLOCK, &t->blocked, NULL);
}

static int columns(void)
{
    struct winsize w;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

/* False: the person wants to end. */
static bool obey_key(struct live *l)
{
    char key;
    struct live_stats stats;
    if (read(STDIN_FILENO, &key, 1) != 1)
        return true;
    if (key == ' ')
        live_event(l, TURN_STOP);
    if (key == 'm') {
        live_stats(l, &stats);
        live_event(l, stats.now.state == TURN_MUTED ? TURN_UNMUTE : TURN_MUTE);
    }
    return key != 'q' && key != 4;
}

/* -- The conversation ------------------------------------------------------------------------- */

static void read_lines(struct live *l, struct screen *s, FILE *events)
{
    char line[LIVE_LINE_MAX];
    size_t n;
    while ((n = live_read(l, line)) > 0) {
        screen_line(s, line, n);
        if (events != NULL)
            fwrite(line, 1, n, events);
    }
    if (events != NULL)
        fflush(events);
}

static void converse(struct live *l, struct screen *s, const struct terminal *t, FILE *events)
{
    struct pollfd fds[] = {{.fd = live_fd(l), .events = POLLIN},
                           {.fd = t->signals, .events = POLLIN},
                           {.fd = t->keys ? STDIN_FILENO : -1, .events = POLLIN}};
    bool going = true;
    while (going && !live_ended(l)) {
        struct live_stats stats;
        poll(fds, ARRAY_LEN(fds), DRAW_MS);
        read_lines(l, s, events);
        if (fds[1].revents != 0)
            going = false;
        if (fds[2].revents != 0)
            going = obey_key(l);
        live_stats(l, &stats);
        screen_draw(s, &stats);
    }
}

static void say_devices(struct screen *s, struct live *l)
{
    struct live_stats stats;
    char text[512];
    live_stats(l, &stats);
    snprintf(text, sizeof(text), "microphone: %s\nloudspeaker: %s",
             stats.audio.capture != NULL ? stats.audio.capture : "-",
             stats.audio.playback != NULL ? stats.audio.playback : "-");
    screen_say(s, text);
}

static void say_figures(const struct live_stats *st)
{
    fprintf(stderr,
            "[%u turns, %u replies, %u interrupted, %u resumed; %llu overruns, %llu underruns; "
            "echo reduced by %.0f dB]\n",
            st->now.turns, st->now.replies, st->now.interrupted, st->now.resumed,
            (unsigned long long)st->audio.overruns, (unsigned long long)st->audio.underruns,
            (double)st->erle);
}

/* What is not as it might be, but no reason to end. */
static void say_notes(const struct talk *t, struct problems *why)
{
    for (size_t i = 0; i < why->n && !t->quiet; i++)
        fprintf(stderr, "parley: %s\n", why->text[i]);
    problems_free(why);
}

static int run(struct talk *t, struct session *session, FILE *events, struct problems *why)
{
    struct live *l = NULL;
    struct terminal terminal;
    struct screen screen;
    struct live_stats stats;
    t->live.session = session;
    t->live.turn = &t->turn;
    t->live.texts = true;
    t->live.realtime = true;
    int err = live_open(&l, &t->live, why);
    if (err < 0)
        return err;
    say_notes(t, why);
    err = open_terminal(&terminal); /* before the threads: they inherit the blocked signals */
    if (err == 0)
        err = live_start(l, why);
    if (err == 0) {
        screen_open(&screen, stdout, !t->plain && isatty(STDOUT_FILENO), columns());
        say_devices(&screen, l);
        converse(l, &screen, &terminal, events);
        close_terminal(&terminal);
        err = live_stop(l, why);
        read_lines(l, &screen, events);
        screen_close(&screen);
        live_stats(l, &stats);
        if (!t->quiet)
            say_figures(&stats);
    } else {
        close_terminal(&terminal);
    }
    live_close(l);
    return err;
}

/* What was not named comes with the program. */
static int find_files(struct talk *t, struct problems *why)
{
    int err = 0;
    if (t->session.dir == NULL) {
        err = installed_path(t->model, sizeof(t->model), MODEL, why);
        t->session.dir = t->model;
    }
    if (err == 0 && t->live.vad == NULL) {
        err = installed_path(t->vad, sizeof(t->vad), INSTALLED_VAD, why);
        t->live.vad = t->vad;
    }
    return err;
}

static int talk(struct talk *t, struct problems *why)
{
    struct session session = {0};
    FILE *events = NULL;
    int err = find_files(t, why);
    if (err < 0)
        return err;
    t->session.report = t->quiet ? NULL : stderr;
    if (t->events != NULL && (events = fopen(t->events, "w")) == NULL)
        return problem_add(why, -errno, "%s: %s", t->events, strerror(errno));
    err = session_open(&session, &t->session, why);
    if (err == 0)
        err = run(t, &session, events, why);
    session_close(&session);
    if (events != NULL && fclose(events) != 0 && err == 0)
        err = problem_add(why, -EIO, "%s: could not be written", t->events);
    return err;
}

int cmd_talk(int argc, char **argv)
{
    struct talk t;
    struct problems why = {.n = 0};
    if (!parse(&t, argc, argv))
        return EXIT_BAD_INPUT;
    if (t.help) {
        fputs(help, stdout);
        return 0;
    }
    int err = t.list ? audio_list(stdout) : talk(&t, &why);
    return err < 0 ? report_problems(&why, err) : 0;
}
