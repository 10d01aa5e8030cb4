/* What the commands of the probe program share. */

#ifndef PROBE_H
#define PROBE_H

#define _GNU_SOURCE

/* Each command is `int NAME(int argc, char **argv)`, argv[0] being its name; it returns the exit code. */
int change(int argc, char **argv);
int hold(int argc, char **argv);
int serve(int argc, char **argv);
int spin(int argc, char **argv);
int stamp(int argc, char **argv);
int work(int argc, char **argv);

/* Return a TCP socket that has the port and does not listen yet; it ends the program where that cannot be. */
int bound(long port);

extern const char *self; /* the path by which this program was executed */

/* Write one line to standard output at once, in one write(2): whoever reads it takes the time. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Write "CALL: REASON" to standard error, REASON being that of errno, and exit with 1. */
void die(const char *call) __attribute__((noreturn));

/* Return a decimal number, or say that TEXT is none and exit with 2. */
long number(const char *text);

#endif
