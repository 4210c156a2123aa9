"""Sends fragments of IPv6 that no kernel sends.

fragments6.py IF MAC ADDRESS COUNT: sends COUNT or more fragments on IF to ADDRESS from random
sources: first, middle and last pieces without the rest, pieces that overlap, pieces of 8 bytes in
reverse order, atomic fragments, chains of 100 headers before and behind the fragment header, and
offsets beyond 65535. Prints the number of fragments.
"""

import random
import socket
import struct
import sys

ifname, mac, addr = sys.argv[1:4]
count = int(sys.argv[4])
random.seed(6)
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
wire.bind((ifname, 0))
ether = bytes.fromhex(mac.replace(":", "")) + wire.getsockname()[4] + b"\x86\xdd"
dst = socket.inet_pton(socket.AF_INET6, addr)
FRAGMENT, UDP, OPTIONS, NONE = 44, 17, 60, 59


def packet(src, nxt, body):
    wire.send(ether + struct.pack("!IHBB", 6 << 28, len(body), nxt, 64) + src + dst + body)


def piece(src, ident, offset, more, data, nxt=UDP):
    packet(src, FRAGMENT, struct.pack("!BBHI", nxt, 0, offset | more, ident) + data)


def stranger():
    return dst[:8] + random.randbytes(8)


sent = 0
while sent < count:
    src, ident = stranger(), random.randrange(1 << 32)
    kind = random.randrange(8)
    if kind == 0:
        piece(src, ident, 0, 1, bytes(1448))
        sent += 1
    elif kind == 1:
        piece(src, ident, random.randrange(1, 5000) * 8, 1, bytes(8 * random.randrange(1, 180)))
        sent += 1
    elif kind == 2:
        piece(src, ident, random.randrange(1, 5000) * 8, 0, bytes(random.randrange(1, 1400)))
        sent += 1
    elif kind == 3:
        for offset in (0, 64, 40, 32, 0, 128):
            piece(src, ident, offset, 1, bytes(80))
        sent += 6
    elif kind == 4:
        for offset in range(1600, 0, -8):
            piece(src, ident, offset, 1, bytes(8))
        sent += 200
    elif kind == 5:
        piece(src, ident, 0, 0, struct.pack("!HHHH", 5, 7, 8, 0))
        sent += 1
    elif kind == 6:
        chain = struct.pack("!BBBBI", OPTIONS, 0, 1, 4, 0) * 100
        piece(src, ident, 0, 1, chain, OPTIONS)
        packet(src, OPTIONS, chain[:-8] + struct.pack("!BBBBI", FRAGMENT, 0, 1, 4, 0) + struct.pack("!BBHI", UDP, 0, 1, ident) + bytes(64))
        sent += 2
    else:
        piece(src, ident, 65528, 1, bytes(1400))
        piece(src, ident, 65528, 0, bytes(1400))
        piece(src, ident, 8, 1, bytes(13))
        sent += 3
print(sent)
