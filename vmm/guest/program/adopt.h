#ifndef ADOPT_H
#define ADOPT_H

/* The file with the process id of the agent. */
#define AGENT_PID "/run/agent.pid"

/* Change what distinguishes this guest from the one with whose memory it began; returns an exit code. */
int adopt(const char *size);

#endif
