"""Sends segments that no kernel sends, made by Scapy's fuzz() from a fixed seed.

hostile.py IF MAC ADDRESS OPEN_PORT CLOSED_PORT COUNT SEED: sends COUNT frames on IF to the host with
MAC and ADDRESS: to its open and its closed port from random sources, into the bystander's
connection with random sequence numbers, and into the victims' connections with numbers near their
windows. Then the bystander's connection must still echo a text. Prints the numbers of frames as JSON.
"""

import json
import random
import socket
import struct
import sys

from scapy.all import IP, TCP, Ether, Raw, fuzz  # type: ignore[import-untyped]

ifname, mac, addr = sys.argv[1:4]
open_port, closed_port, count, seed = (int(word) for word in sys.argv[4:8])
random.seed(seed)
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind((ifname, 0))
own = ":".join("%02x" % b for b in wire.getsockname()[4])
ether = bytes(Ether(dst=mac, src=own, type=0x0800))
VICTIMS = 16
MTU = 1500


def connection():
    c = socket.create_connection((addr, open_port))
    c.settimeout(10)
    c.sendall(b"hello")
    assert c.recv(5) == b"hello"
    return c


def numbers(c):
    """The host's RCV.NXT and SND.NXT for c, read from its answer to one more byte."""
    c.sendall(b"!")
    port = c.getsockname()[1]
    while True:
        frame = wire.recv(65536)
        if frame[12:14] != b"\x08\x00" or frame[23] != 6 or frame[6:12] == wire.getsockname()[4]:
            continue
        tcp = 14 + (frame[14] & 15) * 4
        sport, dport, seq, ack = struct.unpack_from("!HHII", frame, tcp)
        if (sport, dport) == (open_port, port):
            return ack, seq


def options():
    """TCP options: none, one random option, or malformed known ones."""
    if random.random() < 0.5:
        return []
    raw = random.randbytes(random.randrange(1, 41))
    return [(raw[0], raw[1:])] if random.random() < 0.5 else [("Timestamp", (raw[0], 0)), ("SAck", (1, raw[-1]))]


def text():
    return Raw(random.randbytes(random.choice((0, 0, 1, 7, 500, 1400))))


def send(packet, kind):
    try:
        raw = bytes(packet)[:MTU]
    except Exception:  # fuzz() sometimes draws a packet that Scapy cannot build
        sent["unbuilt"] = sent.get("unbuilt", 0) + 1
        return
    wire.send(ether + raw)
    sent[kind] = sent.get(kind, 0) + 1


sent: dict[str, int] = {}
bystander = connection()
local = bystander.getsockname()
victims = [connection() for _ in range(VICTIMS)]
places = [(v.getsockname()[1], *numbers(v)) for v in victims]

for i in range(count):
    stranger = "198.18.%d.%d" % (random.randrange(256), random.randrange(256))
    kind = i % 6
    if kind == 0:
        send(IP(src=stranger, dst=addr) / fuzz(TCP(dport=open_port)) / text(), "open")
    elif kind == 1:
        send(IP(src=stranger, dst=addr) / fuzz(TCP(dport=closed_port, options=options())) / text(), "closed")
    elif kind == 2:
        send(fuzz(IP(src=stranger, dst=addr, proto=6)) / fuzz(TCP(dport=open_port)) / text(), "ip")
    elif kind == 3:
        # RFC 9293, 3.10.7.4 and RFC 5961: the host accepts a blind segment with a probability of 1
        # in 10^5.
        blind = fuzz(TCP(sport=local[1], dport=open_port, options=options()))
        send(IP(src=local[0], dst=addr) / blind / text(), "blind")
    else:
        port, nxt, una = random.choice(places)
        near = (nxt + random.randrange(-3000, 70000)) % 2**32
        ack = (una + random.randrange(-3, 4)) % 2**32
        aimed = fuzz(TCP(sport=port, dport=open_port, seq=near, ack=ack, dataofs=None, options=options()))
        send(IP(src=local[0], dst=addr) / aimed / text(), "aimed")

said = b"still here after %d" % count
bystander.sendall(said)
echoed = b""
while len(echoed) < len(said):
    more = bystander.recv(1000)
    if not more:
        break
    echoed += more
bystander.close()
for v in victims:
    v.close()
print(json.dumps({"sent": sent, "echoed": echoed == said}))
