/* The beginning of a session: from the host's request to a child with its pipes or its terminal. */
#define _GNU_SOURCE
#include "sessions.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static char *next_text(char **at, char *end) {
    char *text = *at;
    if (text >= end)
        return NULL;
    *at = text + strlen(text) + 1; /* the request ends with a zero */
    return text;
}

/* Split a request: exec, user, workdir, flags, columns, lines, limits, number of words, words, variables. */
static int parse(struct session *session, struct command *command) {
    char *at = (char *)session->request, *end = at + session->request_bytes, *text[8];
    if (!session->request_bytes || end[-1] != '\0')
        return 0;
    for (int i = 0; i < 8; i++)
        if (!(text[i] = next_text(&at, end)))
            return 0;
    long words = atol(text[7]), rest = 0;
    for (char *byte = at; byte < end; byte++)
        rest += *byte == '\0';
    if (strcmp(text[0], "exec") || words < 1 || words > rest)
        return 0;
    char **vector = calloc(rest + 3, sizeof *vector); /* words, NULL, a place for HOME, variables, NULL */
    if (!vector)
        return 0;
    for (long i = 0; i < rest; i++)
        vector[i < words ? i : i + 2] = next_text(&at, end);
    *command = (struct command){text[1], text[2], text[3], text[6], atoi(text[4]), atoi(text[5]), vector,
                                vector + words + 2};
    return 1;
}

/* Make a pipe of which the command gets one end, which any user can open again as /dev/stdin or /dev/stdout. */
static void make_pipe(int *reading, int *writing, int *ours, int *theirs, mode_t mode) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return;
    *reading = ends[0];
    *writing = ends[1];
    fchmod(*theirs, mode);
    fcntl(*ours, F_SETFL, O_NONBLOCK);
}

static void open_terminal(const struct place *place, struct session *session, const struct command *command,
                          int streams[3]) {
    struct winsize size = {.ws_row = command->lines, .ws_col = command->columns};
    int zero = 0, master = openat(place->root, "dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (master < 0)
        return;
    session->terminal = 1;
    session->output[0] = master;
    if (ioctl(master, TIOCSPTLCK, &zero) || ioctl(master, TIOCSWINSZ, &size))
        return;
    session->input = fcntl(master, F_DUPFD_CLOEXEC, 3);
    streams[0] = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    streams[1] = streams[2] = streams[0];
}

static void open_streams(const struct place *place, struct session *session, const struct command *command,
                         int streams[3]) {
    if (strchr(command->flags, 't')) {
        open_terminal(place, session, command, streams);
        return;
    }
    if (strchr(command->flags, 'i'))
        make_pipe(&streams[0], &session->input, &session->input, &streams[0], 0644);
    else
        streams[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (strchr(command->flags, 'f')) /* a file of the caller: its next reader continues where the command stops */
        session->unread = fcntl(streams[0], F_DUPFD_CLOEXEC, 3);
    make_pipe(&session->output[0], &streams[1], &session->output[0], &streams[1], 0622);
    if (strchr(command->flags, 'm')) /* both to one file of the caller: their order is kept */
        streams[2] = streams[1];
    else
        make_pipe(&session->output[1], &streams[2], &session->output[1], &streams[2], 0622);
}

/* Run the command in a child, which reports through a pipe that execve(2) closes. Returns its pid, -1 if it fails. */
static pid_t run(const struct place *place, struct session *session, const struct command *command) {
    int streams[3] = {-1, -1, -1}, report[2] = {-1, -1};
    pid_t pid = -1;
    open_streams(place, session, command, streams);
    if (streams[0] >= 0 && streams[1] >= 0 && streams[2] >= 0 && !pipe2(report, O_CLOEXEC) && (pid = fork()) == 0)
        launch(place, command, streams, report[1]);
    for (int i = 0; i < 3; i++)
        if (i == 0 || streams[i] != streams[i - 1])
            shut(&(int){streams[i]});
    shut(&report[1]);
    session->report = report[0];
    if (pid > 0)
        fcntl(session->report, F_SETFL, O_NONBLOCK);
    return pid;
}

/* Answer the request `statistics` with /proc/meminfo of this guest. */
static void send_statistics(struct session *session) {
    char text[8192];
    uint32_t end[2] = {0, 0};
    int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd < 0 ? 0 : read(fd, text, sizeof text);
    shut(&fd);
    if (bytes > 0)
        send_frame(session->channel, OUTPUT, text, bytes);
    send_frame(session->channel, EXIT, end, sizeof end);
    release(session);
}

void session_begin(const struct place *place, struct session *session) {
    struct command command;
    static const char statistics[] = "statistics";
    if (!session->pid && session->request_bytes == sizeof statistics &&
        !memcmp(session->request, statistics, sizeof statistics)) {
        send_statistics(session);
        return;
    }
    if (session->pid || !parse(session, &command)) {
        failure(session, "ethe agent does not understand the request");
        return;
    }
    int no_terminal = strchr(command.flags, 't') != NULL;
    pid_t pid = run(place, session, &command);
    no_terminal &= session->input < 0;
    free(command.argv);
    free(session->request);
    session->request = NULL;
    if (pid > 0)
        session->pid = pid;
    else if (no_terminal)
        failure(session, "e/dev/pts is not a devpts file system");
    else
        failure(session, "ethe guest has no memory, processes or descriptors left for another command");
}
