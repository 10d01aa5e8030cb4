/* Declarations that the commands of the probe program share. */

#ifndef PROBE_H
#define PROBE_H

#define _GNU_SOURCE

/* Each command is `int NAME(int argc, char **argv)` with its name in argv[0]; it returns the exit code. */
int change(int argc, char **argv);
int hold(int argc, char **argv);
int serve(int argc, char **argv);
int spin(int argc, char **argv);
int stamp(int argc, char **argv);
int work(int argc, char **argv);

/* Return a TCP socket that is bound to the port and does not listen yet. Ends the program on failure. */
int bound(long port);

extern const char *self; /* the path by which this program was executed */

/* Write one line to standard output at once, in one write(2): its reader takes the time. */
void put_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Write "CALL: REASON" to standard error, with the reason of errno, and exit with 1. */
void die(const char *call) __attribute__((noreturn));

/* Return a decimal number. If TEXT is not a number, write an error and exit with 2. */
long number(const char *text);

#endif
