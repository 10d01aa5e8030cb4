/* The sessions of the agent: each is one command with its pipes or its terminal.
 *
 * Nothing here waits: pipes are non-blocking, output is read only as far as the host has given credit, and input is
 * kept up to the window that the host knows.
 */
#define _GNU_SOURCE
#include "sessions.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REST_BYTES = 1 << 20 }; /* read after the end; more than that comes from other processes (vmctl/linux/relay.py) */

static struct session sessions[SESSIONS];

void shut(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static struct session *find(uint32_t channel) {
    for (int i = 0; i < SESSIONS; i++)
        if (sessions[i].channel == channel)
            return &sessions[i];
    return NULL;
}

void release(struct session *session) {
    shut(&session->report);
    shut(&session->input);
    shut(&session->output[0]);
    shut(&session->output[1]);
    shut(&session->unread);
    free(session->pending);
    free(session->request);
    memset(session, 0, sizeof *session);
}

void failure(struct session *session, const char *text) {
    send_frame(session->channel, FAILURE, text, strlen(text));
    release(session);
}

static void send_number(uint32_t channel, enum kind kind, uint32_t number) {
    send_frame(channel, kind, &number, sizeof number);
}

/* The host has left: end the command as its parent's end would (PR_SET_PDEATHSIG in mode container). */
static void leave(struct session *session) {
    session->gone = 1;
    shut(&session->report);
    shut(&session->input);
    shut(&session->output[0]);
    shut(&session->output[1]);
    if (session->pid && !session->ended)
        kill(session->pid, SIGKILL);
    else
        release(session);
}

static void add_request(struct session *session, const struct frame *frame) {
    if (session->pid || session->request_bytes + frame->bytes > REQUEST_BYTES) {
        failure(session, "xthe command cannot be executed: Argument list too long");
        return;
    }
    uint8_t *grown = realloc(session->request, session->request_bytes + frame->bytes + 1);
    if (!grown) {
        failure(session, "ethe guest has no memory for the command");
        return;
    }
    session->request = grown;
    memcpy(grown + session->request_bytes, frame->payload, frame->bytes);
    session->request_bytes += frame->bytes;
}

/* ---- input ---- */

static void give_input(struct session *session) {
    while (session->pending_bytes) {
        uint32_t bytes = WINDOW_BYTES - session->pending_at;
        bytes = bytes < session->pending_bytes ? bytes : session->pending_bytes;
        ssize_t written = write(session->input, session->pending + session->pending_at, bytes);
        if (written < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (written < 0) {
            shut(&session->input);
            send_frame(session->channel, INPUT_GONE, NULL, 0);
            return;
        }
        session->pending_at = (session->pending_at + written) % WINDOW_BYTES;
        session->pending_bytes -= written;
        send_number(session->channel, INPUT_CREDIT, written);
    }
    if (session->input_ended) {
        if (session->terminal && write(session->input, "\x04", 1) < 0 && errno == EAGAIN)
            return; /* Ctrl-D is the end of file of a line discipline */
        shut(&session->input);
    }
}

static void take_input(struct session *session, const struct frame *frame) {
    if (session->input < 0)
        return;
    if (session->pending_bytes + frame->bytes > WINDOW_BYTES) {
        leave(session); /* more than agreed */
        return;
    }
    if (!session->pending && !(session->pending = malloc(WINDOW_BYTES))) {
        leave(session);
        return;
    }
    for (uint32_t done = 0, part; done < frame->bytes; done += part) {
        uint32_t at = (session->pending_at + session->pending_bytes) % WINDOW_BYTES;
        part = WINDOW_BYTES - at < frame->bytes - done ? WINDOW_BYTES - at : frame->bytes - done;
        memcpy(session->pending + at, frame->payload + done, part);
        session->pending_bytes += part;
    }
    give_input(session);
}

/* ---- output and end ---- */

static void take_output(struct session *session, int stream) {
    uint8_t part[PAYLOAD_BYTES];
    int *fd = &session->output[stream];
    if (*fd < 0 || session->credit[stream] <= HEADER_BYTES)
        return;
    size_t most = session->credit[stream] - HEADER_BYTES;
    most = most < sizeof part ? most : sizeof part;
    ssize_t bytes = read(*fd, part, most);
    if (bytes < 0 && errno == EINTR)
        return;
    if (bytes <= 0) { /* EIO: no process has the terminal open; EAGAIN is the end only after the command's */
        if (bytes == 0 || errno != EAGAIN || session->ended)
            shut(fd);
        return;
    }
    if (!session->detached) {
        session->credit[stream] -= HEADER_BYTES + bytes; /* so many small frames are not more than a few large ones */
        send_frame(session->channel, stream ? ERROR_OUTPUT : OUTPUT, part, bytes);
    }
    if (session->ended && (session->drained[stream] += bytes) > REST_BYTES)
        shut(fd);
}

static void finish(struct session *session) {
    if (!session->ended || session->report >= 0 || session->output[0] >= 0 || session->output[1] >= 0)
        return;
    int unread = 0;
    if (session->unread >= 0)
        ioctl(session->unread, FIONREAD, &unread);
    uint32_t end[2] = {WIFSIGNALED(session->status) ? 128 + WTERMSIG(session->status) : WEXITSTATUS(session->status),
                       unread};
    send_frame(session->channel, EXIT, end, sizeof end);
    release(session);
}

static void read_report(struct session *session) {
    char text[2048];
    ssize_t bytes = read(session->report, text, sizeof text);
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    shut(&session->report);
    if (bytes > 0) {
        send_frame(session->channel, FAILURE, text, bytes);
        leave(session);
    } else
        send_frame(session->channel, STARTED, boot_id, BOOT_ID_BYTES);
}

void session_reap(void) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (int i = 0; i < SESSIONS; i++) {
            struct session *session = &sessions[i];
            if (!session->channel || session->pid != pid)
                continue;
            session->ended = 1;
            session->status = status;
            if (session->gone)
                release(session);
        }
}

/* ---- frames and events ---- */

static void send_signal(struct session *session, uint32_t number) {
    if (!session->pid || session->ended || number >= NSIG)
        return;
    int typed = number == SIGINT || number == SIGQUIT; /* a terminal sends them to the whole group (termios(3), ISIG) */
    if (!typed || kill(-session->pid, number))
        kill(session->pid, number);
}

static void begin_session(const struct frame *frame) {
    struct session *session = find(0);
    if (!session) {
        static const char text[] = "ethe guest runs as many commands as its agent can have at once";
        send_frame(frame->channel, FAILURE, text, sizeof text - 1);
        return;
    }
    session->channel = frame->channel;
    session->report = session->input = session->output[0] = session->output[1] = -1;
    session->unread = session->polled = -1;
    session->credit[0] = session->credit[1] = WINDOW_BYTES;
    add_request(session, frame);
}

static uint32_t number_in(const struct frame *frame, int index) {
    uint32_t number = 0;
    if (frame->bytes >= (index + 1) * sizeof number)
        memcpy(&number, frame->payload + index * sizeof number, sizeof number);
    return number;
}

void session_frame(const struct place *place, const struct frame *frame) {
    struct session *session = frame->channel ? find(frame->channel) : NULL;
    uint32_t number = number_in(frame, 0), stream = number & 1;
    if (!session && frame->channel && frame->kind == REQUEST)
        begin_session(frame);
    if (!session || session->gone)
        return;
    switch (frame->kind) {
    case REQUEST: add_request(session, frame); break;
    case START: session_begin(place, session); break;
    case INPUT: take_input(session, frame); break;
    case INPUT_END:
        session->input_ended = 1;
        if (session->input >= 0)
            give_input(session);
        break;
    case CREDIT: session->credit[stream] += number_in(frame, 1); break;
    case SIGNAL: send_signal(session, number); break;
    case STOP_OUTPUT:
        shut(&session->output[stream]);
        if (session->terminal) /* one terminal for both directions: its processes get SIGHUP */
            shut(&session->input);
        break;
    case LEAVE: leave(session); break;
    case DETACH:
        session->detached = 1;
        session->credit[0] = session->credit[1] = WINDOW_BYTES; /* what is on the way will not be acknowledged */
        break;
    case PING: send_frame(session->channel, PONG, NULL, 0); break;
    case RESIZE: {
        struct winsize size = {.ws_col = number, .ws_row = number_in(frame, 1)};
        if (session->terminal && session->output[0] >= 0)
            ioctl(session->output[0], TIOCSWINSZ, &size);
    }
    }
}

int session_polls(struct pollfd *polls, int quiet, int *hurry) {
    int count = 0;
    *hurry = 0;
    for (int i = 0; i < SESSIONS; i++) {
        struct session *session = &sessions[i];
        session->polled = -1;
        if (!session->channel || !session->pid)
            continue;
        session->polled = count;
        int reads = session->report < 0 && !quiet; /* no output before STARTED */
        polls[count++] = (struct pollfd){session->report, POLLIN, 0};
        int more = session->pending_bytes || session->input_ended;
        polls[count++] = (struct pollfd){session->input, more ? POLLOUT : 0, 0};
        for (int stream = 0; stream < 2; stream++) {
            int fd = reads && session->credit[stream] > HEADER_BYTES ? session->output[stream] : -1;
            polls[count++] = (struct pollfd){fd, POLLIN, 0};
            *hurry |= fd >= 0 && session->ended; /* another process may keep it open without writing */
        }
    }
    return count;
}

void session_events(const struct pollfd *polls) {
    for (int i = 0; i < SESSIONS; i++) {
        struct session *session = &sessions[i];
        if (!session->channel || session->polled < 0) /* it has ended, or begun, since `session_polls` */
            continue;
        const struct pollfd *mine = polls + session->polled;
        if (mine[0].revents) {
            read_report(session);
            if (session->gone || !session->channel)
                continue;
        }
        if (mine[1].revents & POLLOUT)
            give_input(session);
        else if (mine[1].revents && session->input >= 0 && !session->terminal) {
            shut(&session->input); /* the command has closed it */
            send_frame(session->channel, INPUT_GONE, NULL, 0);
        }
        for (int stream = 0; stream < 2; stream++)
            if (mine[2 + stream].revents || (session->ended && mine[2 + stream].fd >= 0))
                take_output(session, stream);
        finish(session);
    }
}

void session_abort_all(void) {
    for (int i = 0; i < SESSIONS; i++)
        if (sessions[i].channel && !sessions[i].gone)
            leave(&sessions[i]);
}
