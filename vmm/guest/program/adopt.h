#ifndef ADOPT_H
#define ADOPT_H

/* The files with the process ids of the agent, and of what listens for sshd. */
#define AGENT_PID "/run/agent.pid"
#define SSHD_PID "/run/sshd.pid"

/* Write the id of this process to a file. */
void record_pid(const char *path);

/* Wait until the host has saved this guest, and become another one if it asks for that; returns an exit code. */
int hold(const char *mark, const char *report, const char *group);

/* Listen on the SSH port of an address and execute sshd for each connection; returns an exit code if it cannot. */
int sshd(const char *address);

#endif
