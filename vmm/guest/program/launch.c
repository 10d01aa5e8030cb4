/* From a fork of the agent to the command: cgroup, root, user, folder, limits, and the search in PATH.
 *
 * The rules and the words are those of mode `container` (containers/launch.py, containers/identity.py). The image is
 * hostile only to itself here: everything happens inside the guest. What must not happen is that the agent blocks, so
 * the image's files are opened without waiting and read up to a limit.
 */
#define _GNU_SOURCE
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TABLE_BYTES = 1 << 20, COLUMNS = 7, GROUPS = 65536 };

#define LARGEST_ID 2147483647L /* vmctl/spec/userid.py */

#define NO_ENTRY "a number needs no entry: 1000:1000"

static int report_fd;

struct user {
    uid_t uid;
    gid_t gid;
    gid_t *groups;
    size_t count;
    const char *home;
};

static _Noreturn __attribute__((format(printf, 2, 3))) void fail(char kind, const char *format, ...) {
    char text[1024] = {kind};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + 1, sizeof text - 1, format, arguments);
    va_end(arguments);
    (void)!write(report_fd, text, strlen(text)); /* at once: the agent reads it as one piece (pipe(7), PIPE_BUF) */
    _exit(125);
}

static int is_number(const char *text) {
    return *text && text[strspn(text, "0123456789")] == '\0';
}

static long number(const char *text, const char *who) {
    long value = strlen(text) > 10 ? LARGEST_ID + 1 : strtol(text, NULL, 10);
    if (value > LARGEST_ID)
        fail('e', "the user %.40s: ids of users and groups are numbers from 0 to %ld, not %.20s%s", who, LARGEST_ID,
             text, strlen(text) > 20 ? "..." : "");
    return value;
}

/* Return the content of an ordinary file with a final zero, "" if it does not exist. */
static char *content(const char *path) {
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat status;
    if (fd < 0)
        return strdup("");
    if (fstat(fd, &status) || !S_ISREG(status.st_mode))
        fail('e', "%s in the image is not an ordinary file", path);
    char *text = malloc(TABLE_BYTES + 2);
    size_t bytes = 0;
    ssize_t part = 1;
    while (part > 0 && bytes <= TABLE_BYTES) {
        part = read(fd, text + bytes, TABLE_BYTES + 1 - bytes);
        bytes += part > 0 ? part : 0;
    }
    close(fd);
    if (bytes > TABLE_BYTES)
        fail('e', "%s in the image has more than 1 MiB", path);
    text[bytes] = '\0';
    return text;
}

/* Take the next line of a table with numbers in columns 2 and `also`; split it into `count` columns, of which those that
   are missing are empty. */
static int next_row(char **rest, char *columns[], int count, int also) {
    char *line;
    while ((line = strsep(rest, "\n"))) {
        int found = 0;
        char *column;
        while ((column = strsep(&line, ":")))
            if (found++ < count)
                columns[found - 1] = column;
        for (; found < count; found++)
            columns[found] = "";
        if (is_number(columns[2]) && is_number(columns[also]))
            return 1;
    }
    return 0;
}

static int is_member(char *members, const char *name) {
    char *member;
    while ((member = strsep(&members, ",")))
        if (!strcmp(member, name))
            return 1;
    return 0;
}

static gid_t find_group(const char *text, const char *who) {
    char *columns[COLUMNS], *rest = content("/etc/group");
    if (is_number(text))
        return number(text, who);
    while (next_row(&rest, columns, 4, 2))
        if (!strcmp(columns[0], text))
            return number(columns[2], who);
    fail('e', "the group %s is not in the image's /etc/group\n" NO_ENTRY, text);
}

/* The supplementary groups of a user with an entry in passwd(5). */
static void add_groups(struct user *user, const char *name, const char *who) {
    char *columns[COLUMNS], *rest = content("/etc/group");
    user->groups = malloc(GROUPS * sizeof(gid_t));
    while (user->count < GROUPS && next_row(&rest, columns, 4, 2))
        if (is_member(columns[3], name))
            user->groups[user->count++] = number(columns[2], who);
}

/* Return USER[:GROUP]; a number is an id and needs no entry, "" is root without supplementary groups. */
static struct user find_user(const char *text) {
    char *columns[COLUMNS], *rest = content("/etc/passwd"), *name = strdup(*text ? text : "0"), *group = strchr(name, ':');
    struct user user = {.home = "/"};
    if (group)
        *group++ = '\0';
    int by_id = is_number(name), found = 0;
    char wanted[16] = "";
    if (by_id)
        snprintf(wanted, sizeof wanted, "%ld", number(name, text));
    while (!found && next_row(&rest, columns, 7, 3))
        found = by_id ? !strcmp(columns[2], wanted) : !strcmp(columns[0], name);
    if (!found && !by_id)
        fail('e', "the user %s is not in the image's /etc/passwd\n" NO_ENTRY, name);
    user.uid = number(found ? columns[2] : name, text);
    if (found) {
        user.gid = number(columns[3], text);
        user.home = *columns[5] ? columns[5] : "/";
    }
    if (group && *group)
        user.gid = find_group(group, text);
    else if (*text && found)
        add_groups(&user, columns[0], text);
    return user;
}

static void become(const struct user *user) {
    if (setgroups(user->count, user->groups) || setresgid(user->gid, user->gid, user->gid) ||
        setresuid(user->uid, user->uid, user->uid))
        fail('e', "the user %u:%u cannot be used: %s", user->uid, user->gid, strerror(errno));
}

/* Set the limits "soft:hard,..." in the order of the kernel's numbers; -1 is infinity. */
static void set_limits(const char *text) {
    for (int number = 0; number < RLIM_NLIMITS && *text; number++) {
        char *end;
        struct rlimit limit;
        limit.rlim_cur = strtoll(text, &end, 10);
        limit.rlim_max = strtoll(*end ? end + 1 : end, &end, 10);
        setrlimit(number, &limit); /* a number of files above this kernel's fs.nr_open is refused: it stays as it is */
        text = *end ? end + 1 : end;
    }
}

static const char *variable(char **env, const char *name) {
    size_t bytes = strlen(name);
    for (; *env; env++)
        if (!strncmp(*env, name, bytes) && (*env)[bytes] == '=')
            return *env + bytes + 1;
    return NULL;
}

/* Execute argv[0] by the rules of execvp(3); report the first error that is not "there is no such file". */
static _Noreturn void execute(char **argv, char **env) {
    const char *search = strchr(argv[0], '/') ? "" : variable(env, "PATH"), *why = NULL;
    search = search ? search : "/bin:/usr/bin";
    for (const char *end; search; search = *end ? end + 1 : NULL) {
        end = strchrnul(search, ':');
        char path[PATH_MAX];
        int bytes = snprintf(path, sizeof path, "%.*s%s%s", (int)(end - search), search, end > search ? "/" : "", argv[0]);
        if (bytes >= (int)sizeof path)
            errno = ENAMETOOLONG;
        else
            execve(path, argv, env);
        int error = errno;
        if (error != ENOENT && error != ENOTDIR)
            why = why ? why : strerror(error);
        else if (bytes < (int)sizeof path && !access(path, F_OK))
            why = why ? why : strerror(ENOENT);
    }
    if (!why)
        fail('n', "the command %s is not in the image", argv[0]);
    fail('x', "the command %s cannot be executed: %s", argv[0], why);
}

/* Execute busybox of the initramfs, which was opened outside of the workload's root, as the program argv[0]. */
static _Noreturn void execute_tool(int busybox, char **argv, char **env) {
    fexecve(busybox, argv, env);
    fail('x', "busybox cannot be executed: %s", strerror(errno));
}

static void reset_signals(void) {
    sigset_t none;
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Undo what the agent has set for itself. */
static void leave_agent(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC | O_NONBLOCK);
    (void)!write(fd, "0", 1);
    close(fd);
}

static void join_cgroup(const char *file) {
    int fd = open(file, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return; /* a system has none for the workload */
    if (write(fd, "0", 1) != 1)
        fail('e', "the workload's cgroup cannot be joined: %s", strerror(errno));
    close(fd);
}

void launch(const struct place *place, const struct command *command, const int streams[3], int report) {
    report_fd = report;
    int busybox = strchr(command->flags, 'b') ? open("/bin/busybox", O_PATH | O_CLOEXEC) : -1;
    setsid();
    umask(022);
    join_cgroup(place->cgroup);
    if (fchdir(place->root) || chroot("."))
        fail('e', "the root of the workload cannot be entered: %s", strerror(errno));
    leave_agent();
    struct user user = find_user(command->user);
    if (chdir(*command->workdir ? command->workdir : "/"))
        fail('e', "the folder %s cannot be entered: %s", command->workdir,
             errno == ENOENT    ? "it does not exist"
             : errno == ENOTDIR ? "it is not a folder"
                                : strerror(errno));
    if (strchr(command->flags, 't')) {
        if (fchown(streams[0], user.uid, -1) || ioctl(streams[0], TIOCSCTTY, 0))
            fail('e', "the terminal cannot be used: %s", strerror(errno));
    }
    for (int number = 0; number < 3; number++)
        dup2(streams[number], number); /* those of the agent are larger than 2 */
    set_limits(command->limits);
    become(&user);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* after the change of user, which clears it */
    reset_signals();
    if (busybox >= 0)
        execute_tool(busybox, command->argv, command->env);
    if (!variable(command->env, "HOME")) {
        char *home;
        if (asprintf(&home, "HOME=%s", user.home) < 0)
            fail('e', "no memory");
        command->env[-1] = home; /* the agent leaves a place for it */
        execute(command->argv, command->env - 1);
    }
    execute(command->argv, command->env);
}
