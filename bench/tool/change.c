// change BYTES LOWER DOOMED [MOUNT...]: what changes in a root file system; one step at each SIGUSR1, synced after it.
//
// 1. BYTES are written to a new file; 2. one byte of the file LOWER of the image is changed; 3. the file DOOMED of the
// image is deleted; 4. what step 1 wrote is deleted; 5. the first MOUNT that can is told to give free blocks back.
#include "go.h"
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define WRITTEN "/vmctl-written"

static int synced(void) {
    int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = root < 0 ? -1 : syncfs(root);
    if (root >= 0)
        close(root);
    return result;
}

static int write_file(unsigned long long bytes) {
    static uint64_t block[1 << 17]; // 1 MiB
    uint64_t state = 88172645463325252ULL;
    int fd = open(WRITTEN, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    while (bytes > 0) {
        for (size_t at = 0; at < sizeof block / sizeof *block; at++) { // xorshift64: nothing that compresses
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            block[at] = state;
        }
        ssize_t count = write(fd, block, bytes < sizeof block ? bytes : sizeof block);
        if (count < 0)
            return -1;
        bytes -= (unsigned long long)count;
    }
    return fsync(fd) != 0 || close(fd) != 0 ? -1 : 0;
}

static int change_byte(const char *path) {
    char byte;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || pread(fd, &byte, 1, 0) != 1)
        return -1;
    byte = (char)~byte;
    return pwrite(fd, &byte, 1, 0) != 1 || fsync(fd) != 0 || close(fd) != 0 ? -1 : 0;
}

static int trim(const char *path, unsigned long long *bytes) {
    struct fstrim_range range = {.len = UINT64_MAX};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int result = fd < 0 ? -1 : ioctl(fd, FITRIM, &range);
    int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    *bytes = range.len;
    return result;
}

static void trim_first(int count, char **mounts) {
    unsigned long long bytes;
    for (int at = 0; at < count; at++)
        if (trim(mounts[at], &bytes) == 0) {
            dprintf(1, "end trim %llu %s\n", bytes, mounts[at]);
            return;
        }
    dprintf(1, "end trim refused: %s\n", count ? strerror(errno) : "nothing to ask");
}

int change(int argc, char **argv) {
    if (argc < 4)
        return errno = EINVAL, failed("change");
    unsigned long long bytes = strtoull(argv[1], NULL, 10);
    go_prepare();
    if (synced() != 0)
        return failed("sync");
    dprintf(1, "ready change\n");
    go_wait();
    if (write_file(bytes) != 0 || synced() != 0)
        return failed("write");
    dprintf(1, "end write %llu\n", bytes);
    go_wait();
    if (change_byte(argv[2]) != 0 || synced() != 0)
        return failed("copy");
    dprintf(1, "end copy 1\n");
    go_wait();
    if (unlink(argv[3]) != 0 || synced() != 0)
        return failed("remove");
    dprintf(1, "end remove 1\n");
    go_wait();
    if (unlink(WRITTEN) != 0 || synced() != 0)
        return failed("delete");
    dprintf(1, "end delete 1\n");
    go_wait();
    trim_first(argc - 4, argv + 4);
    for (;;)
        go_wait();
}
