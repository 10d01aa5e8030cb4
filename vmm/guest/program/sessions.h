#ifndef SESSIONS_H
#define SESSIONS_H

#include "frames.h"
#include "launch.h"

#include <poll.h>

enum { SESSIONS = 128, POLLED = 4 }; /* of a session: report, input, and two outputs */

/* One command that the host has asked for. A descriptor is -1 if it is not open. */
struct session {
    uint32_t channel; /* 0: free */
    pid_t pid;        /* 0: not started */
    int status, ended;
    int report;        /* closed by execve(2): the command runs */
    int input, output[2]; /* with a terminal, output[0] is its master and input a duplicate of it */
    int unread;           /* a duplicate of the command's input, to see at the end what it has not read */
    uint32_t credit[2];   /* bytes that the host can take */
    uint32_t drained[2];  /* bytes read after the end of the command */
    int terminal, gone;   /* gone: the host has left */
    int detached;         /* the caller has left, and the command runs on: its output is dropped */
    int input_ended;
    int polled;           /* index of its first entry in what is waited for, or -1 */
    uint8_t *pending;     /* input that the command has not taken, a ring */
    uint32_t pending_at, pending_bytes;
    uint8_t *request;
    size_t request_bytes;
};

extern char boot_id[BOOT_ID_BYTES];

/* Put a frame into the queue to the host. */
void send_frame(uint32_t channel, enum kind kind, const void *payload, size_t bytes);

/* Run the command of a session whose request is complete. */
void session_begin(const struct place *place, struct session *session);

/* Close a descriptor that is open, and forget it. */
void shut(int *fd);

/* Close everything of a session and forget it. */
void release(struct session *session);

/* Report that a command was not started, and forget its session; the first letter is the kind (launch.h). */
void failure(struct session *session, const char *text);

/* Handle a frame for a session; unknown channels are ignored, except that a request begins a session. */
void session_frame(const struct place *place, const struct frame *frame);

/* Fill in what to wait for; `quiet`: the port cannot take output now. Returns the number of entries. `hurry` becomes 1 if
   the events have to be handled without waiting. */
int session_polls(struct pollfd *polls, int quiet, int *hurry);

/* Handle the events of `session_polls`. */
void session_events(const struct pollfd *polls);

/* Wait for children that have ended, and finish sessions. */
void session_reap(void);

/* End all sessions, because the host has gone. */
void session_abort_all(void);

#endif
