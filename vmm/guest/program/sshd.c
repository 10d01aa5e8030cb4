/* agent sshd ADDRESS: listens on the SSH port of the address, reports the mark `ssh`, also if the workload has the port
 * already, and executes dropbear for each connection. A guest to which nobody connects has no sshd in its memory, and the keys are read when they are needed:
 * one that begins with the memory of another guest needs no new sshd.
 *
 * After SIGHUP it listens on the address that is in /run/address by then, and reports the mark again.
 */
#define _GNU_SOURCE
#include "adopt.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PORT = 22, MARKS = 3, MOST_CHILDREN = 16 };

static const char address_file[] = "/run/address";

static int listener(const char *text) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && inet_pton(AF_INET, text, &address.sin_addr) == 1 &&
        !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) &&
        !bind(fd, (struct sockaddr *)&address, sizeof address) && !listen(fd, MOST_CHILDREN))
        return fd;
    fprintf(stderr, "port %d of %s: %m\n", PORT, text);
    if (fd >= 0)
        close(fd);
    return -1;
}

static int new_listener(void) {
    char text[INET_ADDRSTRLEN] = "";
    FILE *file = fopen(address_file, "re");
    int found = file && fscanf(file, "%15s", text) == 1;
    if (file)
        fclose(file);
    return found ? listener(text) : -1;
}

/* Execute sshd for the next connection; returns whether it was started. */
static int serve(int listening, const sigset_t *before) {
    int connection = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    if (connection < 0)
        return 0;
    pid_t pid = fork();
    if (pid == 0) {
        sigprocmask(SIG_SETMASK, before, NULL);
        dup2(connection, STDIN_FILENO);
        dup2(connection, STDOUT_FILENO);
        execl("/bin/dropbear", "dropbear", "-i", "-r", "/root/host_key", "-s", "-j", "-k", "-m", (char *)NULL);
        _exit(127);
    }
    close(connection);
    return pid > 0;
}

int sshd(const char *address) {
    sigset_t awaited, before;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    sigaddset(&awaited, SIGHUP);
    sigprocmask(SIG_BLOCK, &awaited, &before);
    int events = signalfd(-1, &awaited, SFD_CLOEXEC), listening = listener(address), children = 0;
    if (events < 0)
        return 1;
    record_pid(SSHD_PID);
    fcntl(MARKS, F_SETFD, FD_CLOEXEC);
    setpriority(PRIO_PROCESS, 0, 0); /* of its commands; it was started with less than the workload's */
    dprintf(MARKS, "ssh\n");
    for (;;) {
        struct pollfd polls[] = {{events, POLLIN, 0}, {children < MOST_CHILDREN ? listening : -1, POLLIN, 0}};
        struct signalfd_siginfo info;
        poll(polls, 2, -1);
        if (polls[1].revents)
            children += serve(listening, &before);
        if (!polls[0].revents || read(events, &info, sizeof info) != sizeof info)
            continue;
        while (waitpid(-1, NULL, WNOHANG) > 0)
            children--;
        if (info.ssi_signo == SIGHUP) {
            if (listening >= 0)
                close(listening);
            listening = new_listener();
            dprintf(MARKS, "ssh\n");
        }
    }
}
