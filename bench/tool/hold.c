// hold BYTES: at the first SIGUSR1 take memory and touch every page of it, at the second one give it back.
#include "go.h"
#include <sys/mman.h>
#include <unistd.h>

int hold(int argc, char **argv) {
    size_t bytes = argc > 1 ? strtoull(argv[1], NULL, 10) : 0, page = (size_t)sysconf(_SC_PAGESIZE);
    go_prepare();
    dprintf(1, "ready hold\n");
    go_wait();
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return failed("load");
    for (size_t at = 0; at < bytes; at += page)
        memset(memory + at, (int)(at / page % 255 + 1), sizeof(long)); // no page of zeros: that could be shared
    dprintf(1, "end load %zu\n", bytes);
    go_wait();
    if (munmap(memory, bytes) != 0)
        return failed("free");
    dprintf(1, "end free %zu\n", bytes);
    for (;;)
        go_wait();
}
