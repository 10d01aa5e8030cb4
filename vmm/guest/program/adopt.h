#ifndef ADOPT_H
#define ADOPT_H

/* The file with the process id of the agent. */
#define AGENT_PID "/run/agent.pid"

/* Wait until the host has saved this guest, and become another one if it asks for that; returns an exit code. */
int hold(const char *mark, const char *report, const char *group);

#endif
