/* Step by step: each SIGUSR1 from the host lets the program take one more step, after which it prints a line. */

#ifndef GO_H
#define GO_H

#include "probe.h"

#include <signal.h>

static inline void go_handler(int signum)
{
    (void)signum;
}

/* Call this before the first line is printed: the host may send the signal once it has read that line. PID 1 of a
 * namespace receives only signals that it has a handler for (pid_namespaces(7)), hence a handler although the signal is
 * blocked. */
static inline void go_prepare(sigset_t *go)
{
    struct sigaction action = {.sa_handler = go_handler};

    sigemptyset(go);
    sigaddset(go, SIGUSR1);
    sigaction(SIGUSR1, &action, 0);
    sigprocmask(SIG_BLOCK, go, 0);
}

static inline void go_wait(const sigset_t *go)
{
    int signum;

    while (sigwait(go, &signum) != 0) {
    }
}

#endif
