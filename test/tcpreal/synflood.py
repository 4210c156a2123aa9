"""Sends SYNs from unused addresses: synflood.py ADDRESS PORT COUNT PER_SECOND SEED.

The sources are from 198.18.0.0/15, which RFC 2544 reserves for such tests. Prints the number of SYNs
sent and the time it took, as JSON.
"""

import json
import random
import socket
import struct
import sys
import time

addr = sys.argv[1]
port, count, rate, seed = (int(word) for word in sys.argv[2:6])
rng = random.Random(seed)
dst = socket.inet_aton(addr)
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)

OPTIONS = bytes.fromhex("020405b40402080a") + b"\0\0\0\1\0\0\0\0" + bytes.fromhex("01030307")
TCP_LEN = 20 + len(OPTIONS)
# The checksum over everything that all segments share, computed once.
base = sum(struct.unpack("!%dH" % (len(OPTIONS) // 2), OPTIONS))
base += sum(struct.unpack("!2H", dst)) + 6 + TCP_LEN + port + (TCP_LEN // 4 << 12 | 2) + 64240

begin = time.monotonic()
for i in range(count):
    # Send in bursts that fit the queue of a TAP, 1000 packets.
    if i % 100 == 0:
        time.sleep(max(0, begin + i / rate - time.monotonic()))
    src = 0xC6120000 | rng.getrandbits(17)
    sport = 1024 + rng.getrandbits(15)
    seq = rng.getrandbits(32)
    n = base + (src >> 16) + (src & 0xFFFF) + sport + (seq >> 16) + (seq & 0xFFFF)
    n = (n & 0xFFFF) + (n >> 16)
    n = (n & 0xFFFF) + (n >> 16)
    # The kernel fills in the IP header's length, identification and checksum.
    ip = struct.pack("!BBHHHBBHI4s", 0x45, 0, 0, 0, 0x4000, 64, 6, 0, src, dst)
    tcp = struct.pack("!HHIIHHHH", sport, port, seq, 0, TCP_LEN // 4 << 12 | 2, 64240, ~n & 0xFFFF, 0)
    s.sendto(ip + tcp + OPTIONS, (addr, 0))
print(json.dumps({"sent": count, "seconds": time.monotonic() - begin}))
