/* The kernel's floor: how soon can a program in new namespaces write its first byte, with only system calls in
 * between? This starts one container-like process and prints the nanoseconds from just before clone3 to that byte.
 *
 *   floor ROOT OVERLAY-OPTIONS PROGRAM [ARGUMENT...] < steps
 *
 * `steps` are lines of mount(8), mknod(1), ln(1) and echo(1) as `vmctl up --explain` prints them. They are parsed before the
 * clock starts, and taken inside the new root between pivot_root and exec. Without steps, only namespaces, overlay,
 * pivot_root and exec are measured. See clone(2), pivot_root(2), Documentation/filesystems/overlayfs.rst.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_STEPS = 128, LINE = 1024 };

struct step {
    enum { MOUNT, COVER, READ_ONLY, DEVICE, HOST_DEVICE, LINK, SETTING } kind;
    char source[256], target[256], type[32], data[256];
    unsigned long flags;
    unsigned major, minor;
};

static const struct { const char *name; unsigned long flag; } OPTIONS[] = {
    {"ro", MS_RDONLY}, {"nosuid", MS_NOSUID}, {"nodev", MS_NODEV}, {"noexec", MS_NOEXEC},
    {"relatime", MS_RELATIME}, {"strictatime", MS_STRICTATIME}, {"defaults", 0},
};
static struct step steps[MAX_STEPS];
static int count;

static void check(int failed, const char *what)
{
    if (failed) {
        fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
        _exit(1);
    }
}

/* Split "ro,nosuid,size=64k" into mount flags and options of the file system. */
static void parse_options(char *text, struct step *step)
{
    for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
        size_t known = 0;
        while (known < sizeof OPTIONS / sizeof *OPTIONS && strcmp(word, OPTIONS[known].name))
            known++;
        if (known < sizeof OPTIONS / sizeof *OPTIONS) {
            step->flags |= OPTIONS[known].flag;
        } else {
            if (*step->data)
                strcat(step->data, ",");
            strcat(step->data, word);
        }
    }
}

static int parse(char *line, struct step *step)
{
    char options[256], verb[16];

    if (sscanf(line, "mount -t %31s -o %255s %255s %255s", step->type, options, step->source, step->target) == 4) {
        step->kind = MOUNT;
        parse_options(options, step);
    } else if (sscanf(line, "mount --bind -o %255s %255s %255[^,],", options, step->source, step->target) == 3) {
        step->kind = HOST_DEVICE;
        parse_options(options, step);
    } else if (sscanf(line, "echo '%255[^']' > %255s", step->data, step->target) == 2) {
        step->kind = SETTING;
    } else if (sscanf(line, "mount --bind %255s %255s && %15s", step->source, step->target, verb) == 3) {
        step->kind = READ_ONLY;
    } else if (sscanf(line, "mount --bind %255s %255s", step->source, step->target) == 2) {
        step->kind = COVER;
    } else if (sscanf(line, "mknod -m 666 %255s c %u %u", step->target, &step->major, &step->minor) == 3) {
        step->kind = DEVICE;
    } else if (sscanf(line, "ln -s %255s %255s", step->source, step->target) == 2) {
        step->kind = LINK;
    } else {
        return 0;
    }
    return 1;
}

static void read_steps(void)
{
    char line[LINE];

    while (fgets(line, sizeof line, stdin)) {
        errno = EINVAL;
        check(count == MAX_STEPS || !parse(line, &steps[count++]), line);
    }
}

static int mount_on_folder(const struct step *step)
{
    int failed = mount(step->source, step->target, step->type, step->flags, step->data);
    if (failed && errno == ENOENT) {
        mkdir(step->target, 0755);
        failed = mount(step->source, step->target, step->type, step->flags, step->data);
    }
    return failed;
}

/* Cover a file by /dev/null, a folder by an empty file system; do nothing if the path is missing. */
static int cover(const struct step *step)
{
    unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;

    if (mount(step->source, step->target, NULL, MS_BIND, NULL) == 0 || errno == ENOENT)
        return 0;
    return errno == ENOTDIR ? mount("tmpfs", step->target, "tmpfs", flags, "size=0") : -1;
}

static int make_read_only(const struct step *step)
{
    unsigned long flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;

    if (mount(step->source, step->target, NULL, MS_BIND | MS_REC, NULL))
        return errno == ENOENT ? 0 : -1;
    return mount(NULL, step->target, NULL, flags, NULL);
}

/* Bind a device of the host, whose root is the working directory. */
static int bind_device(const struct step *step)
{
    int file = open(step->target, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);

    if (file < 0 || close(file) || mount(step->source + 1, step->target, NULL, MS_BIND, NULL))
        return -1;
    return mount(NULL, step->target, NULL, MS_BIND | MS_REMOUNT | step->flags, NULL);
}

static int set(const struct step *step)
{
    int file = open(step->target, O_WRONLY | O_CLOEXEC);
    ssize_t length = strlen(step->data);

    return file < 0 || write(file, step->data, length) != length || close(file) ? -1 : 0;
}

static int take(const struct step *step)
{
    switch (step->kind) {
    case MOUNT: return mount_on_folder(step);
    case COVER: return cover(step);
    case READ_ONLY: return make_read_only(step);
    case DEVICE: return mknod(step->target, S_IFCHR | 0666, makedev(step->major, step->minor));
    case HOST_DEVICE: return bind_device(step);
    case SETTING: return set(step);
    case LINK: return symlink(step->source, step->target);
    }
    return -1;
}

static void child(const char *root, const char *overlay, char **argv, int output)
{
    check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make mounts private");
    check(mount("overlay", root, "overlay", 0, overlay), "mount overlay");
    int old = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    check(old < 0 || chdir(root), "enter root");
    check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    check(fchdir(old), "enter the old root");
    umask(0);
    for (int i = 0; i < count; i++)
        check(take(&steps[i]), steps[i].target);
    umask(022);
    check(fchdir(old) || umount2(".", MNT_DETACH) || chdir("/"), "leave the old root");
    check(dup2(output, 1) < 0, "dup2");
    execv(argv[0], argv);
    check(1, argv[0]);
}

static int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv)
{
    struct clone_args how = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP,
        .exit_signal = SIGCHLD,
    };
    int output[2], status;
    char byte;

    errno = EINVAL;
    check(argc < 4, "usage: floor ROOT OVERLAY-OPTIONS PROGRAM [ARGUMENT...] < steps");
    read_steps();
    check(pipe2(output, O_CLOEXEC), "pipe");
    int64_t begin = now_ns();
    pid_t pid = syscall(SYS_clone3, &how, sizeof how);
    check(pid < 0, "clone3");
    if (pid == 0)
        child(argv[1], argv[2], argv + 3, output[1]);
    close(output[1]);
    ssize_t got = read(output[0], &byte, 1);
    int64_t end = now_ns();
    waitpid(pid, &status, 0);
    check(got != 1 || status, "the program wrote nothing");
    printf("%lld\n", (long long)(end - begin));
    return 0;
}
