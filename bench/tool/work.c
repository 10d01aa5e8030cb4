/* work NAME:COUNT...: does each named work COUNT times, one after the other, between its two lines. */

#include "probe.h"

#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NUMBERS = 1024, LINE_BYTES = 64, NODES = 512 * 1024, CHUNK_PAGES = 4096, SETTLE_US = 200000, DRAIN_US = 20000 };

static volatile uint64_t sink; /* keeps the compiler from removing a computation */

struct node {
    struct node *next;
    char rest[LINE_BYTES - sizeof(struct node *)];
};

static struct node *nodes;

/* A chain of dependent multiplications, in registers only: MMIX's generator (Knuth). */
static void integer(long count)
{
    uint64_t value = 1;

    for (long i = 0; i < count; i++)
        value = value * 6364136223846793005u + 1442695040888963407u;
    sink = value;
}

/* Move the number at `root` of a heap down to its place (Williams, Algorithm 232). */
static void sift(uint32_t *heap, int root, int size)
{
    for (int child; (child = 2 * root + 1) < size; root = child) {
        if (child + 1 < size && heap[child] < heap[child + 1])
            child++;
        if (heap[root] >= heap[child])
            return;
        uint32_t kept = heap[root];
        heap[root] = heap[child];
        heap[child] = kept;
    }
}

/* Sort 1024 random numbers: unpredictable branches, loads and stores in the first cache. */
static void sort(long count)
{
    static uint32_t numbers[NUMBERS];
    uint32_t random = 1;

    for (long i = 0; i < count; i++) {
        for (int n = 0; n < NUMBERS; n++)
            numbers[n] = random = random * 1664525u + 1013904223u;
        for (int n = NUMBERS / 2; n-- > 0;)
            sift(numbers, n, NUMBERS);
        for (int n = NUMBERS; --n > 0;) {
            uint32_t most = numbers[0];
            numbers[0] = numbers[n];
            numbers[n] = most;
            sift(numbers, 0, n);
        }
    }
    sink = numbers[NUMBERS / 2];
}

/* Dependent loads, one cache line each, through 32 MiB in an order that no prefetcher can predict. */
static void memory(long count)
{
    struct node *at = nodes;

    for (long i = 0; i < count; i++)
        at = at->next;
    sink = (uintptr_t)at;
}

/* One cycle through all nodes (Sattolo's algorithm), the same in every run. */
static void make_memory(void)
{
    static uint32_t order[NODES];
    uint64_t random = 1;

    nodes = mmap(NULL, sizeof *nodes * NODES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (nodes == MAP_FAILED)
        die("mmap");
    for (uint32_t i = 0; i < NODES; i++)
        order[i] = i;
    for (uint32_t i = NODES - 1; i > 0; i--) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint32_t other = (random >> 33) % i, kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    for (uint32_t i = 0; i < NODES; i++)
        nodes[order[i]].next = &nodes[order[(i + 1) % NODES]];
}

static void getppid_raw(long count)
{
    for (long i = 0; i < count; i++)
        syscall(SYS_getppid); /* a cheap call that no library caches */
}

static void open_close(long count)
{
    for (long i = 0; i < count; i++) {
        int fd = open(self, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || close(fd) != 0)
            die(self);
    }
}

static void spawn(long count)
{
    char *arguments[] = {(char *)self, "nothing", NULL};

    for (long i = 0; i < count; i++) {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            execv(self, arguments);
            _exit(127);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid)
            die("fork");
        if (status != 0) {
            fprintf(stderr, "%s could not be executed\n", self);
            exit(1);
        }
    }
}

/* Touch new pages of 4 KiB and unmap them, 16 MiB at a time. */
static void fault(long count)
{
    long page_bytes = sysconf(_SC_PAGESIZE);

    while (count > 0) {
        long pages = count < CHUNK_PAGES ? count : CHUNK_PAGES;
        char *start = mmap(NULL, pages * page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED)
            die("mmap");
        madvise(start, pages * page_bytes, MADV_NOHUGEPAGE); /* else one fault would map 512 pages */
        for (long page = 0; page < pages; page++)
            *(volatile char *)(start + page * page_bytes) = 1;
        munmap(start, pages * page_bytes);
        count -= pages;
    }
}

static const struct {
    const char *name;
    void (*run)(long count);
    void (*make)(void); /* before the time is taken */
} works[] = {
    {"sort", sort, NULL},             {"integer", integer, NULL}, {"memory", memory, make_memory},
    {"getppid", getppid_raw, NULL},   {"open_close", open_close, NULL}, {"spawn", spawn, NULL}, {"fault", fault, NULL},
};

/* Stay on one processor: the highest allowed one, since most other work is on the lowest. */
static void pin(void)
{
    cpu_set_t allowed, one;

    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return;
    for (int cpu = CPU_SETSIZE - 1; cpu >= 0; cpu--)
        if (CPU_ISSET(cpu, &allowed)) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            if (sched_setaffinity(0, sizeof one, &one) == 0)
                put_line("pinned %d", cpu);
            return;
        }
}

static void do_one(char *what)
{
    char *colon = strchr(what, ':');
    size_t length = colon ? (size_t)(colon - what) : strlen(what);

    for (size_t i = 0; i < sizeof works / sizeof *works; i++) {
        if (strlen(works[i].name) != length || strncmp(works[i].name, what, length) != 0)
            continue;
        long count = number(colon ? colon + 1 : "1");
        if (works[i].make)
            works[i].make();
        usleep(DRAIN_US); /* the transfer of earlier output must not take time from this work */
        put_line("begin %s", works[i].name);
        works[i].run(count);
        put_line("end %s %ld", works[i].name, count);
        return;
    }
    fprintf(stderr, "unknown work: %s\n", what);
    exit(2);
}

int work(int argc, char **argv)
{
    pin();
    usleep(SETTLE_US); /* until the supervisor has started: else it would read the first line late */
    for (int i = 1; i < argc; i++)
        do_one(argv[i]);
    put_line("done");
    return 0;
}
