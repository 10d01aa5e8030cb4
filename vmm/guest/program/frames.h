/* The frames between the agent and the host, see vmctl/attach/frames.py. Numbers are little-endian. */
#ifndef FRAMES_H
#define FRAMES_H

#include <stddef.h>
#include <stdint.h>

enum { HEADER_BYTES = 8, PAYLOAD_BYTES = 16384, WINDOW_BYTES = 1 << 18, REQUEST_BYTES = 8 << 20, NONCE_BYTES = 16, BOOT_ID_BYTES = 36 };

enum kind { /* from the host */
    SYNC = 1, REQUEST, START, INPUT, INPUT_END, CREDIT, SIGNAL, RESIZE, STOP_OUTPUT, LEAVE, PING, DETACH,
    /* to the host */
    HELLO = 32, STARTED, OUTPUT, ERROR_OUTPUT, INPUT_CREDIT, INPUT_GONE, EXIT, FAILURE, PONG
};

struct frame {
    uint32_t channel; /* of a session; 0: of the connection itself */
    uint8_t kind;
    uint8_t zero;
    uint16_t bytes; /* of the payload */
    uint8_t payload[PAYLOAD_BYTES];
};

#endif
