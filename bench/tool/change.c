/* change BYTES LOWER DOOMED [MOUNT...]: changes a root file system; one step at each SIGUSR1, then a sync.
 *
 * 1. write BYTES to a new file; 2. change one byte of the file LOWER of the image; 3. delete the file DOOMED of the
 * image; 4. delete the file of step 1; 5. trim free blocks of the first MOUNT that supports it. */

#include "go.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define WRITTEN "/vmctl-written"

static uint64_t block[1 << 17]; /* 1 MiB */

static int opened(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);

    if (fd < 0)
        die(path);
    return fd;
}

static void finish(const char *what, long count)
{
    int root = opened("/", O_RDONLY | O_DIRECTORY);

    if (syncfs(root) != 0)
        die("syncfs");
    close(root);
    put_line("end %s %ld", what, count);
}

static void write_file(long bytes)
{
    uint64_t state = 88172645463325252ULL;
    int fd = opened(WRITTEN, O_WRONLY | O_CREAT | O_TRUNC);

    for (long left = bytes; left > 0;) {
        for (size_t at = 0; at < sizeof block / sizeof *block; at++) { /* xorshift64: does not compress */
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block[at] = state;
        }
        ssize_t count = write(fd, block, left < (long)sizeof block ? (size_t)left : sizeof block);
        if (count < 0)
            die("write");
        left -= count;
    }
    if (fsync(fd) != 0)
        die("fsync");
    close(fd);
}

static void change_byte(const char *path)
{
    char byte;
    int fd = opened(path, O_RDWR);

    if (pread(fd, &byte, 1, 0) != 1)
        die("pread");
    byte = (char)~byte;
    if (pwrite(fd, &byte, 1, 0) != 1 || fsync(fd) != 0)
        die("pwrite");
    close(fd);
}

static void delete(const char *path)
{
    if (unlink(path) != 0)
        die(path);
}

/* Return whether the file system at PATH was trimmed; if not, errno has the reason. */
static int trimmed(const char *path)
{
    struct fstrim_range range = {.len = UINT64_MAX};
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return 0;
    int result = ioctl(fd, FITRIM, &range), reason = errno;
    close(fd);
    errno = reason;
    if (result == 0)
        put_line("end trim %llu %s", (unsigned long long)range.len, path);
    return result == 0;
}

static void trim_first(int count, char **mounts)
{
    for (int i = 0; i < count; i++)
        if (trimmed(mounts[i]))
            return;
    put_line("end trim refused: %s", count > 0 ? strerror(errno) : "no mount point is given");
}

int change(int argc, char **argv)
{
    long bytes = number(argc > 3 ? argv[1] : "");
    sigset_t go;

    go_prepare(&go);
    put_line("ready");
    go_wait(&go);
    write_file(bytes);
    finish("write", bytes);
    go_wait(&go);
    change_byte(argv[2]);
    finish("copy", 1);
    go_wait(&go);
    delete(argv[3]);
    finish("remove", 1);
    go_wait(&go);
    delete(WRITTEN);
    finish("delete", 1);
    go_wait(&go);
    trim_first(argc - 4, argv + 4);
    for (;;)
        go_wait(&go);
}
