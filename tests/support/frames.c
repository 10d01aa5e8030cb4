/* Raw frames, for attackers inside an instance.
 *   frames send IFACE HEX...        sends these frames
 *   frames flood IFACE COUNT        sends frames from COUNT different MACs
 *   frames watch IFACE SECONDS END  prints each received frame as hex, until one contains the text END
 */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static unsigned char frame[2048];

static int find(const unsigned char *in, int length, const char *text) {
    int size = strlen(text);
    for (int i = 0; i + size <= length; i++)
        if (!memcmp(in + i, text, size)) return 1;
    return 0;
}

static int watch(int s, double seconds, const char *end) {
    struct timeval second = {1, 0};
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
    puts("watching");
    fflush(stdout);
    for (time_t begin = time(NULL); time(NULL) - begin < seconds;) {
        struct sockaddr_ll from;
        socklen_t size = sizeof from;
        int length = recvfrom(s, frame, sizeof frame, 0, (struct sockaddr *)&from, &size);
        if (length < 0 || from.sll_pkttype == PACKET_OUTGOING) continue;
        for (int i = 0; i < length; i++) printf("%02x", frame[i]);
        puts("");
        fflush(stdout);
        if (find(frame, length, end)) return 0;
    }
    return 1;
}

int main(int argc, char **argv) {
    struct sockaddr_ll place = {.sll_family = AF_PACKET, .sll_protocol = htons(3), .sll_ifindex = if_nametoindex(argv[2])};
    int s = socket(AF_PACKET, SOCK_RAW, htons(3));
    if (argc < 4 || s < 0 || bind(s, (struct sockaddr *)&place, sizeof place)) return perror("frames"), 2;
    struct packet_mreq all = {.mr_ifindex = place.sll_ifindex, .mr_type = PACKET_MR_PROMISC};
    setsockopt(s, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all);
    if (!strcmp(argv[1], "watch")) return watch(s, atof(argv[3]), argv[4]);
    if (!strcmp(argv[1], "flood")) {
        memset(frame, 0xff, 6);
        frame[12] = 0x88, frame[13] = 0xb5;
        for (int i = 0; i < atoi(argv[3]); i++) {
            frame[6] = 2, frame[10] = i >> 8, frame[11] = i;
            if (send(s, frame, 60, 0) < 0) perror("send");
            if (i % 50 == 0) usleep(1000);
        }
        return 0;
    }
    for (int n = 3; n < argc; n++) {
        int length = strlen(argv[n]) / 2;
        for (int i = 0; i < length; i++) sscanf(argv[n] + 2 * i, "%2hhx", frame + i);
        if (send(s, frame, length, 0) < 0) return perror("send"), 1;
    }
    return 0;
}
