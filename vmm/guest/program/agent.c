/* agent unlock: unlocks the other side of the terminal whose master is standard input, and prints its number.
 * agent hold MARK REPORT GROUP: see adopt.c.
 * agent sshd ADDRESS: see sshd.c.
 * agent PORT ROOT CGROUP: executes commands for the host inside the workload's root, see vmm/guest/__init__.py.
 *
 * It runs outside that root and waits for frames on a virtio-serial port. One command is one session (sessions.c); all
 * share the port. A frame is written by one write(2), which the kernel's driver takes as a whole or refuses.
 */
#define _GNU_SOURCE
#include "adopt.h"
#include "sessions.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { PAUSE_MS = 100 }; /* between two looks whether the host has connected: a port reports POLLHUP until then */

static int port;
static uint8_t nonce[NONCE_BYTES];
char boot_id[BOOT_ID_BYTES]; /* of this kernel, without a final zero; random(4) */
static size_t have; /* bytes of the host that are not handled yet */
static int synchronous; /* the host has answered our HELLO: frames follow */

/* Frames that the port could not take yet. */
static struct {
    uint8_t *bytes;
    size_t at, end, size;
} queue;

static size_t frame_bytes(const uint8_t *at) {
    return HEADER_BYTES + (at[6] | at[7] << 8);
}

static void flush(void) {
    while (queue.at < queue.end) {
        ssize_t written = write(port, queue.bytes + queue.at, frame_bytes(queue.bytes + queue.at));
        if (written < 0)
            return; /* EAGAIN; or the host is gone, which poll(2) reports */
        queue.at += written;
    }
    queue.at = queue.end = 0;
}

void send_frame(uint32_t channel, enum kind kind, const void *payload, size_t bytes) {
    struct frame frame = {channel, kind, 0, bytes, {0}};
    if (bytes)
        memcpy(frame.payload, payload, bytes);
    if (queue.end + HEADER_BYTES + bytes > queue.size) {
        size_t size = queue.end + HEADER_BYTES + bytes + (1 << 16);
        uint8_t *grown = realloc(queue.bytes, size);
        if (!grown)
            _exit(1); /* init starts us again, and the host ends the sessions */
        queue.bytes = grown;
        queue.size = size;
    }
    memcpy(queue.bytes + queue.end, &frame, HEADER_BYTES + bytes);
    queue.end += HEADER_BYTES + bytes;
    flush();
}

/* Skip what the host sent to an earlier agent, up to its answer to our HELLO. Returns how many bytes are used. */
static size_t synchronize(const uint8_t *bytes, size_t count) {
    const size_t wanted = HEADER_BYTES + NONCE_BYTES;
    for (size_t at = 0; at + wanted <= count; at++)
        if (bytes[at + 4] == SYNC && !memcmp(bytes + at + HEADER_BYTES, nonce, NONCE_BYTES)) {
            synchronous = 1;
            return at + wanted;
        }
    return count < wanted ? 0 : count - wanted + 1;
}

static void read_port(const struct place *place) {
    static uint8_t bytes[2 * sizeof(struct frame)];
    ssize_t got = read(port, bytes + have, sizeof bytes - have);
    if (got <= 0)
        return;
    have += got;
    size_t used = synchronous ? 0 : synchronize(bytes, have);
    while (synchronous && have - used >= HEADER_BYTES && have - used >= frame_bytes(bytes + used)) {
        struct frame frame;
        size_t whole = frame_bytes(bytes + used);
        if (whole > sizeof frame)
            _exit(1);
        memcpy(&frame, bytes + used, whole);
        session_frame(place, &frame);
        used += whole;
    }
    have -= used;
    memmove(bytes, bytes + used, have);
}

/* Say that there is a new agent, or a new connection: the host answers, and its frames follow. */
static void greet(void) {
    session_abort_all();
    synchronous = 0;
    have = queue.at = queue.end = 0;
    send_frame(0, HELLO, nonce, sizeof nonce);
}

static int signals(void) {
    sigset_t set;
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGHUP); /* of adopt.c: the host's end is another one */
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void serve(const struct place *place) {
    static struct pollfd polls[2 + SESSIONS * POLLED];
    int events = signals();
    for (int connected = 1;;) {
        int waiting = queue.at < queue.end;
        polls[0] = (struct pollfd){connected ? port : -1, POLLIN | (waiting ? POLLOUT : 0), 0};
        polls[1] = (struct pollfd){events, POLLIN, 0};
        int hurry, count = session_polls(polls + 2, waiting, &hurry);
        poll(polls, 2 + count, hurry ? 0 : connected ? -1 : PAUSE_MS);
        if (polls[1].revents) {
            struct signalfd_siginfo info;
            if (read(events, &info, sizeof info) == sizeof info && info.ssi_signo == SIGHUP)
                greet();
        }
        session_reap();
        session_events(polls + 2);
        connected = !(polls[0].revents & POLLHUP);
        if (!connected && synchronous)
            greet();
        if (polls[0].revents & POLLIN)
            read_port(place);
        flush();
    }
}

static int unlock(void) {
    int zero = 0, number;
    if (ioctl(0, TIOCSPTLCK, &zero) || ioctl(0, TIOCGPTN, &number))
        return 1;
    return printf("%d\n", number) < 0;
}

void record_pid(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    dprintf(fd, "%d\n", getpid());
    close(fd);
}

int main(int count, char **arguments) {
    if (count == 2 && !strcmp(arguments[1], "unlock"))
        return unlock();
    if (count == 5 && !strcmp(arguments[1], "hold"))
        return hold(arguments[2], arguments[3], arguments[4]);
    if (count == 3 && !strcmp(arguments[1], "sshd"))
        return sshd(arguments[2]);
    if (count != 4)
        return 2;
    int adjust, identity = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (identity < 0 || read(identity, boot_id, BOOT_ID_BYTES) < BOOT_ID_BYTES)
        return 1;
    close(identity);
    setpriority(PRIO_PROCESS, 0, 0); /* of its commands; it was started with less than the workload's */
    port = open(arguments[1], O_RDWR | O_NONBLOCK | O_CLOEXEC);
    struct place place = {open(arguments[2], O_PATH | O_DIRECTORY | O_CLOEXEC), arguments[3]};
    if (port < 0 || place.root < 0 || getrandom(nonce, sizeof nonce, GRND_NONBLOCK | GRND_INSECURE) != sizeof nonce)
        return 1;
    if ((adjust = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC)) >= 0)
        (void)!write(adjust, "-1000", 5); /* else the kernel may choose the agent, and nobody could look inside */
    record_pid(AGENT_PID);
    greet();
    serve(&place);
}
