/* agent hold MARK REPORT GROUP: reports the mark, after which the host saves this guest, and waits for a request of the
 * host on standard input. A guest that begins with what was saved goes on here, too, in the same process: to execute
 * another one would take a third of its start. If the request is `adopt BYTES`, the guest becomes another one, reports
 * where it runs, and its workload, the frozen control group GROUP, goes on; the exit code is then ADOPTED. Else the
 * workload goes on as well, and a request that is neither `release` nor missing for a minute is printed, for init.
 *
 * What is to be changed is in the bytes after the request (vmm/saved/adoption.py):
 *
 *   entropy HEX                        for the kernel's random numbers, which it makes anew at once (random(4))
 *   clock SECONDS                      since the epoch
 *   hostname NAME
 *   machine-id HEX                     if the guest has written one
 *   link MAC MAC [ADDRESS MASK [GATEWAY]]
 *                                      the interface with the first MAC gets the second one, an address and a route
 *   file MODE PATH BYTES               and then these bytes, which replace the content
 *
 * An interface is down meanwhile: so its neighbours and routes are forgotten.
 */
#define _GNU_SOURCE
#include "adopt.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/ether.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ADOPTED = 3, FAILED = 4, MARKS = 3, HOLD_MS = 60000, PAUSE_US = 10000 };
enum { MOST_BYTES = 1 << 16, ENTROPY_BYTES = 64, MACHINE_ID_BYTES = 32 };

static const char written_machine_id[] = "/disk/upper/etc/machine-id", machine_id[] = "/image/etc/machine-id";

static int fail(const char *what) {
    fprintf(stderr, "%s: %m\n", what);
    return 0;
}

static int add_entropy(const char *hex) {
    struct {
        int bits, bytes;
        unsigned char raw[ENTROPY_BYTES];
    } pool = {ENTROPY_BYTES * 8, ENTROPY_BYTES, {0}};
    for (int i = 0; i < ENTROPY_BYTES; i++)
        if (sscanf(hex + 2 * i, "%2hhx", &pool.raw[i]) != 1)
            return fail("entropy");
    int fd = open("/dev/random", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) || ioctl(fd, RNDRESEEDCRNG))
        return fail("/dev/random");
    close(fd);
    return 1;
}

static int set_clock(const char *seconds) {
    double epoch = atof(seconds);
    struct timespec time = {.tv_sec = (time_t)epoch, .tv_nsec = (long)((epoch - (time_t)epoch) * 1e9)};
    return !clock_settime(CLOCK_REALTIME, &time) || fail("the clock");
}

static int replace(const char *path, mode_t mode, const char *bytes, size_t count) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, mode);
    int done = fd >= 0 && write(fd, bytes, count) == (ssize_t)count && !fchmod(fd, mode);
    if (fd >= 0)
        close(fd);
    return done || fail(path);
}

static int set_machine_id(const char *hex) {
    struct stat found;
    char line[MACHINE_ID_BYTES + 2];
    if (lstat(written_machine_id, &found) || !S_ISREG(found.st_mode) || found.st_size < MACHINE_ID_BYTES)
        return 1;
    snprintf(line, sizeof line, "%.*s\n", MACHINE_ID_BYTES, hex);
    (void)replace(machine_id, 0444, line, strlen(line)); /* the workload may have made it something else */
    return 1;
}

static int find(int fd, const char *mac, struct ifreq *request) {
    struct if_nameindex *all = if_nameindex();
    struct ether_addr wanted;
    int found = 0;
    if (!all || !ether_aton_r(mac, &wanted))
        return fail(mac);
    for (struct if_nameindex *one = all; one->if_index && !found; one++) {
        memset(request, 0, sizeof *request);
        strncpy(request->ifr_name, one->if_name, IFNAMSIZ - 1);
        found = !ioctl(fd, SIOCGIFHWADDR, request) && !memcmp(request->ifr_hwaddr.sa_data, &wanted, sizeof wanted);
    }
    if_freenameindex(all);
    return found || fail(mac);
}

static int set_flags(int fd, struct ifreq *request, short set, short clear) {
    if (ioctl(fd, SIOCGIFFLAGS, request))
        return 0;
    request->ifr_flags = (request->ifr_flags | set) & ~clear;
    return !ioctl(fd, SIOCSIFFLAGS, request);
}

static int set_address(int fd, struct ifreq *request, unsigned long what, const char *text) {
    struct sockaddr_in *address = (struct sockaddr_in *)&request->ifr_addr;
    memset(address, 0, sizeof *address);
    address->sin_family = AF_INET;
    return inet_pton(AF_INET, text, &address->sin_addr) == 1 && !ioctl(fd, what, request);
}

static int add_route(int fd, char *name, const char *gateway) {
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = name};
    struct sockaddr_in to = {.sin_family = AF_INET}, any = {.sin_family = AF_INET};
    if (inet_pton(AF_INET, gateway, &to.sin_addr) != 1)
        return 0;
    memcpy(&route.rt_gateway, &to, sizeof to);
    memcpy(&route.rt_dst, &any, sizeof any);
    memcpy(&route.rt_genmask, &any, sizeof any);
    return !ioctl(fd, SIOCADDRT, &route);
}

static int change_link(char *text) {
    char from[18], to[18], address[16] = "", mask[16] = "", gateway[16] = "", name[IFNAMSIZ];
    struct ifreq request;
    struct ether_addr mac;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int words = sscanf(text, "%17s %17s %15s %15s %15s", from, to, address, mask, gateway);
    if (fd < 0 || words < 2 || !ether_aton_r(to, &mac) || !find(fd, from, &request))
        return fail(text);
    memcpy(name, request.ifr_name, sizeof name);
    int done = set_flags(fd, &request, 0, IFF_UP);
    request.ifr_hwaddr.sa_family = 1; /* ARPHRD_ETHER */
    memcpy(request.ifr_hwaddr.sa_data, &mac, sizeof mac);
    done = done && !ioctl(fd, SIOCSIFHWADDR, &request);
    if (words >= 4)
        done = done && set_address(fd, &request, SIOCSIFADDR, address) &&
               set_address(fd, &request, SIOCSIFNETMASK, mask) && set_flags(fd, &request, IFF_UP, 0) &&
               (words < 5 || add_route(fd, name, gateway));
    close(fd);
    return done || fail(text);
}

/* Handle one line; a file has its bytes after it. Returns how many of them are used, -1 if it failed. */
static long handle(char *line, const char *after, size_t left) {
    char *words = strchr(line, ' '), path[256];
    unsigned mode;
    unsigned long count;
    if (!words)
        return -1;
    *words++ = '\0';
    if (!strcmp(line, "entropy"))
        return add_entropy(words) - 1;
    if (!strcmp(line, "clock"))
        return set_clock(words) - 1;
    if (!strcmp(line, "hostname"))
        return (!sethostname(words, strlen(words)) || fail("hostname")) - 1;
    if (!strcmp(line, "machine-id"))
        return set_machine_id(words) - 1;
    if (!strcmp(line, "link"))
        return change_link(words) - 1;
    if (!strcmp(line, "file") && sscanf(words, "%o %255s %lu", &mode, path, &count) == 3 && count <= left)
        return replace(path, mode, after, count) ? (long)count : -1;
    return -1;
}

/* Let a process of ours know that the guest is another one. */
static void wake(const char *pid_file) {
    char text[16] = "";
    int fd = open(pid_file, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0 || atoi(text) <= 1)
        return;
    kill(atoi(text), SIGHUP);
    close(fd);
}

static int adopt(const char *size) {
    static char bytes[MOST_BYTES + 1];
    size_t count = strtoul(size, NULL, 10), have = 0;
    while (count <= MOST_BYTES && have < count) {
        ssize_t got = read(0, bytes + have, count - have);
        if (got <= 0)
            return 1;
        have += got;
    }
    for (char *line = bytes, *end; line < bytes + have; line = end) {
        if (!(end = memchr(line, '\n', bytes + have - line)))
            return 1;
        *end++ = '\0';
        long used = handle(line, end, bytes + have - end);
        if (used < 0)
            return 1;
        end += used;
    }
    wake(AGENT_PID); /* its connection with the host is a new one */
    wake(SSHD_PID);  /* its address is a new one */
    return 0;
}

/* Read the request. It is empty if none has come in time: then the command of the host has died. */
static void read_request(char *line, size_t size) {
    size_t have = 0;
    for (int left_ms = HOLD_MS; left_ms > 0 && have < size - 1;) {
        struct pollfd port = {0, POLLIN, 0};
        if (poll(&port, 1, left_ms) <= 0)
            break;
        if (read(0, line + have, 1) != 1) { /* the host's end is not open */
            usleep(PAUSE_US);
            left_ms -= PAUSE_US / 1000;
        } else if (line[have++] == '\n') {
            line[have - 1] = '\0';
            return;
        }
    }
    *line = '\0';
}

int hold(const char *mark, const char *report, const char *group) {
    char line[64];
    int frozen = open(group, O_WRONLY | O_CLOEXEC);
    dprintf(MARKS, "%s\n", mark);
    read_request(line, sizeof line);
    int adopted = !strncmp(line, "adopt ", 6);
    if (adopted && adopt(line + 6)) {
        dprintf(MARKS, "error 125 the guest got no identity\n");
        return FAILED;
    }
    if (adopted)
        dprintf(MARKS, "init %s\nadopted\n%s", report, frozen < 0 ? "" : "exec\n");
    if (frozen >= 0)
        (void)!write(frozen, "0", 1);
    if (!adopted && *line && strcmp(line, "release"))
        puts(line);
    return adopted ? ADOPTED : 0;
}
