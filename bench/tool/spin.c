/* spin COUNT: does fixed work on one processor, then writes one byte.
 * stamp [MILLISECONDS [PORT]]: waits, takes the time, listens on the port, writes the time, and keeps running.
 */
#include "probe.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int spin(int argc, char **argv) {
    volatile uint64_t result; // keeps the compiler from removing the loop
    uint64_t state = 88172645463325252ULL;
    for (unsigned long long left = argc > 1 ? strtoull(argv[1], NULL, 10) : 0; left > 0; left--)
        state ^= state << 13, state ^= state >> 7, state ^= state << 17; // xorshift64: each step needs the one before
    result = state;
    return write(1, result ? "." : "!", 1) != 1;
}

int stamp(int argc, char **argv) {
    long wait = argc > 1 ? number(argv[1]) : 0;
    struct timespec left = {wait / 1000, wait % 1000 * 1000000}, now;
    int server = argc > 2 ? bound(number(argv[2])) : -1;
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (server >= 0 && listen(server, 16) != 0)
        die("listen");
    put_line("stamp %lld", (long long)now.tv_sec * 1000000000LL + now.tv_nsec);
    return pause(); // an exit would cause work for the host at the measured moment
}
