/* The probe program, which measures inside an instance: one static file that needs nothing of the image. It prints
 * "begin NAME" and "end NAME COUNT" around each work, so that the host can measure the time. It also works as PID 1 of
 * a namespace. */

#include "probe.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int nothing(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *usage;
} commands[] = {
    {"change", change, "BYTES LOWER DOOMED [MOUNT...]"},
    {"hold", hold, "BYTES"},
    {"serve", serve, "PORT [DELAY_MS]"},
    {"spin", spin, "STEPS"},
    {"stamp", stamp, "[MILLISECONDS [PORT]]"},
    {"work", work, "NAME:COUNT..."},
    {"nothing", nothing, ""},
};

const char *self;

int main(int argc, char **argv)
{
    self = argv[0];
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(stderr, "usage: %s %s %s\n", self, commands[i].name, commands[i].usage);
    return 2;
}

void put_line(const char *format, ...)
{
    char line[256];
    va_list values;

    va_start(values, format);
    int size = vsnprintf(line, sizeof line - 1, format, values);
    va_end(values);
    if (size > (int)sizeof line - 2)
        size = sizeof line - 2;
    line[size++] = '\n';
    if (write(1, line, size) != size)
        die("write to standard output");
}

void die(const char *call)
{
    fprintf(stderr, "%s: %s\n", call, strerror(errno));
    exit(1);
}

long number(const char *text)
{
    char *end;
    long found = strtol(text, &end, 10);

    if (end == text || *end != '\0') {
        fprintf(stderr, "%s is not a number\n", text);
        exit(2);
    }
    return found;
}
