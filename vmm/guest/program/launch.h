#ifndef LAUNCH_H
#define LAUNCH_H

#include <sys/types.h>

/* A command to execute. All texts are inside one request of the host. */
struct command {
    const char *user, *workdir, *flags, *limits;
    int columns, lines;
    char **argv, **env; /* both end with NULL */
};

/* The fixed places of this guest. */
struct place {
    int root;           /* descriptor of the workload's root */
    const char *cgroup; /* its file cgroup.procs */
};

/* Execute the command with these descriptors as 0, 1 and 2; a failure is written to `report` as a letter, n (not found), x
   (cannot be executed) or e (another error), a text, and perhaps a newline and a hint. Does not return. */
_Noreturn void launch(const struct place *place, const struct command *command, const int streams[3], int report);

#endif
