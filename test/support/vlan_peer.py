"""A host on a VLAN at the far end of a TAP, on a packet socket: for kernels without 802.1Q devices.

vlan_peer.py IF VID OUR_IP THEIR_IP PATH: resolves THEIR_IP by ARP, sends two pings, fetches PATH by HTTP
over its own small TCP, and prints the results as JSON. Every frame it sends is tagged. It counts frames
without the right tag as stray and does not handle them.
"""

import hashlib
import json
import os
import socket
import struct
import sys
import time

SOL_PACKET, PACKET_AUXDATA, VLAN_VALID, OUTGOING = 263, 8, 0x10, 4
US_MAC = bytes.fromhex("020000000099")
ifname, vid, us, them, path = sys.argv[1], int(sys.argv[2]), *sys.argv[3:6]
us_ip, them_ip = socket.inet_aton(us), socket.inet_aton(them)
them_mac = b"\xff" * 6
stray = 0
# The port differs from run to run: the connection of the last run may be in TIME_WAIT.
port = 20000 + os.getpid() % 20000

s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
s.bind((ifname, 0))
s.settimeout(5)


def cksum(b):
    if len(b) & 1:
        b += b"\0"
    n = sum(struct.unpack("!%dH" % (len(b) // 2), b))
    while n >> 16:
        n = (n & 0xFFFF) + (n >> 16)
    return ~n & 0xFFFF


def send(kind, payload):
    s.send(them_mac + US_MAC + struct.pack("!HHH", 0x8100, vid, kind) + payload)


def arp(op, tha, tpa):
    send(0x0806, struct.pack("!HHBBH", 1, 0x800, 6, 4, op) + US_MAC + us_ip + tha + tpa)


def ip(proto, payload):
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, proto, 0) + us_ip + them_ip
    send(0x0800, head[:10] + struct.pack("!H", cksum(head)) + head[12:] + payload)


def tcp(seq, ack, flags, data=b""):
    mss = struct.pack("!BBH", 2, 4, 1460) if flags & 2 else b""
    off = (20 + len(mss)) << 2
    head = struct.pack("!HHIIBBHHH", port, 80, seq, ack, off, flags, 65535, 0, 0) + mss
    pseudo = us_ip + them_ip + struct.pack("!BBH", 0, 6, len(head) + len(data))
    head = head[:16] + struct.pack("!H", cksum(pseudo + head + data)) + head[18:]
    ip(6, head + data)


def receive():
    """Returns type and payload of the next tagged frame for us. Answers ARP requests meanwhile."""
    global stray
    while True:
        frame, anc, _, addr = s.recvmsg(65600, 256)
        if addr[2] == OUTGOING:
            continue
        status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", anc[0][2][:20])
        if not status & VLAN_VALID or tci != vid or tpid != 0x8100:
            stray += 1
            continue
        kind, body = struct.unpack("!H", frame[12:14])[0], frame[14:]
        if kind == 0x0806 and body[7] == 1 and body[24:28] == us_ip:
            arp(2, body[8:14], body[14:18])
        elif frame[0:6] == US_MAC:
            return kind, body


arp(1, b"\0" * 6, them_ip)
while True:
    kind, body = receive()
    if kind == 0x0806 and body[14:18] == them_ip:
        them_mac = body[8:14]
        break

pings = []
for seq in (1, 2):
    echo = struct.pack("!BBHHH", 8, 0, 0, 7, seq) + b"vlan" * 10
    ip(1, echo[:2] + struct.pack("!H", cksum(echo)) + echo[4:])
    while True:
        kind, body = receive()
        if kind == 0x0800 and body[9] == 1 and body[20] == 0:
            pings.append(body[20:].hex())
            break

iss = int(time.time()) & 0xFFFFFF
nxt, data, longest = None, bytearray(), 0
tcp(iss, 0, 2)
while True:
    kind, body = receive()
    if kind != 0x0800 or body[9] != 6:
        continue
    longest = max(longest, len(body))
    seg = body[20 : struct.unpack("!H", body[2:4])[0]]
    seq, _, off, flags = struct.unpack("!IIBB", seg[4:14])
    if flags & 4:
        sys.exit("reset")
    if flags & 2 and nxt is None:
        nxt = (seq + 1) & 0xFFFFFFFF
        request = b"GET /%s HTTP/1.0\r\n\r\n" % path.encode()
        tcp(iss + 1, nxt, 0x18, request)
        iss += 1 + len(request)
        continue
    payload = seg[(off >> 4) * 4 :]
    if seq == nxt and nxt is not None:
        data += payload
        nxt = (nxt + len(payload) + (flags & 1)) & 0xFFFFFFFF
    tcp(iss, nxt, 0x10)
    if flags & 1 and seq + len(payload) + 1 & 0xFFFFFFFF == nxt:
        break
tcp(iss, nxt, 0x11)
head, _, content = bytes(data).partition(b"\r\n\r\n")
print(
    json.dumps(
        {
            "pings": pings,
            "status": head.split(b" ")[1].decode(),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "longest": longest,
            "stray": stray,
        }
    )
)
