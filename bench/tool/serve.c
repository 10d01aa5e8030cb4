/* serve PORT [DELAY_MS]: a TCP server for one client at a time. The client's first byte selects what the server does:
 *   p  answer each request of 64 bytes with as many bytes, after DELAY_MS
 *   d  send bytes until the client closes the connection
 *   u  receive bytes until the client ends its side, then answer with their number (64 bits, little endian)
 */

#include "probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 64, BLOCK_BYTES = 256 * 1024 };

static char block[BLOCK_BYTES];

/* Return whether all bytes were sent. They are not when the client has closed the connection. */
static int send_all(int client, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(client, bytes, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return 0;
        bytes += sent;
        size -= sent;
    }
    return 1;
}

static void answer(int client, long delay_ms)
{
    while (recv(client, block, MESSAGE_BYTES, MSG_WAITALL) == MESSAGE_BYTES) {
        if (delay_ms > 0)
            usleep(delay_ms * 1000);
        if (!send_all(client, block, MESSAGE_BYTES))
            return;
    }
}

static void take(int client)
{
    uint64_t taken = 0;
    ssize_t size;

    while ((size = recv(client, block, sizeof block, 0)) > 0)
        taken += size;
    send_all(client, (char *)&taken, sizeof taken);
}

static void attend(int client, long delay_ms)
{
    char wanted = 0;
    int yes = 1;

    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (recv(client, &wanted, 1, 0) != 1)
        return;
    if (wanted == 'p')
        answer(client, delay_ms);
    else if (wanted == 'd')
        while (send_all(client, block, sizeof block))
            ;
    else if (wanted == 'u')
        take(client);
}

int bound(long port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int yes = 1, server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (server < 0 || setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0)
        die("socket");
    if (bind(server, (struct sockaddr *)&address, sizeof address) != 0)
        die("bind");
    return server;
}

int serve(int argc, char **argv)
{
    long delay_ms = argc > 2 ? number(argv[2]) : 0;
    int server = bound(argc > 1 ? number(argv[1]) : 0);

    if (listen(server, 16) != 0)
        die("listen");
    for (;;) {
        int client = accept(server, NULL, NULL);
        if (client < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (client < 0)
            die("accept");
        attend(client, delay_ms);
        close(client);
    }
}
