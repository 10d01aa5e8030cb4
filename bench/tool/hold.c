/* hold BYTES: at the first SIGUSR1 map memory and touch every page of it, at the second one unmap it. */

#include "go.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int hold(int argc, char **argv)
{
    size_t bytes = (size_t)number(argc > 1 ? argv[1] : ""), page = (size_t)sysconf(_SC_PAGESIZE);
    sigset_t go;

    go_prepare(&go);
    put_line("ready");
    go_wait(&go);
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    for (size_t at = 0; at < bytes; at += page)
        memset(memory + at, (int)(at / page % 255 + 1), sizeof(long)); /* a page of zeros could be shared */
    put_line("end load %zu", bytes);
    go_wait(&go);
    if (munmap(memory, bytes) != 0)
        die("munmap");
    put_line("end free %zu", bytes);
    for (;;)
        go_wait(&go);
}
