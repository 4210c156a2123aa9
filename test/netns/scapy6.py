"""Lets Scapy build every IPv6 header that the emulated host accepts, and parse each that it emits.

scapy6.py IF MAC ADDRESS ECHO_PORT CLOSED_PORT COUNT SEED: asks COUNT questions from an address that
Linux does not have, waits for the answer to each, and builds every received packet again from the
fields that Scapy found in it: lengths and checksums are Scapy's, and the bytes must be the same.
Then sends COUNT frames of fuzz() without waiting. Prints the numbers of packets as JSON.
"""

import json
import random
import socket
import sys
import time

from scapy.all import (  # type: ignore[import-untyped]
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLQuery2,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    Ether,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    Raw,
    TCP,
    UDP,
    defragment6,
    fragment6,
    fuzz,
)
from scapy.layers.inet6 import HBHOptUnknown  # type: ignore[import-untyped]

ifname, mac, addr = sys.argv[1:4]
echo_port, closed_port, count, seed = (int(word) for word in sys.argv[4:8])
random.seed(seed)
ME = "2001:db8::77"
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86DD))
wire.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
wire.bind((ifname, 0))
own_mac = wire.getsockname()[4]
own = ":".join("%02x" % b for b in own_mac)
ether = bytes(Ether(dst=mac, src=own, type=0x86DD))
asked: dict[str, int] = {}
parsed: dict[str, int] = {}
WAIT = 10.0


def tail(packet):
    """The last header that is not payload."""
    last = packet
    while last.payload and not isinstance(last.payload, Raw) and "error" not in last.payload.name:
        last = last.payload
    return last


def rebuilt(raw):
    """raw, built again by Scapy without the lengths and checksums of the host."""
    packet = IPv6(raw)
    packet.plen = None
    layer = packet.payload
    while layer:
        if isinstance(layer, IPv6) or "IP error" in layer.name or "in ICMPv6" in layer.name:
            break  # the quoted packet of an error: as it is
        if isinstance(layer, Raw):
            break
        if IPv6ExtHdrFragment is type(layer) and (layer.offset or layer.m):
            break  # the checksum is that of the whole
        for field in ("cksum", "chksum", "len"):
            if field in layer.fields and not layer.name.startswith("ICMPv6 Neighbor Discovery Option"):
                setattr(layer, field, None)
        if isinstance(layer, TCP):
            layer.dataofs = None
        layer = layer.payload
    return bytes(packet)


def receive(deadline):
    """The next packet of the host to ME or to a group, checked; None at the deadline."""
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        wire.settimeout(left)
        try:
            frame, source = wire.recvfrom(65536)
        except TimeoutError:
            return None
        if frame[6:12].hex(":") != mac:
            continue
        length = 40 + int.from_bytes(frame[18:20], "big")
        raw = frame[14 : 14 + length]
        packet = IPv6(raw)
        if packet.dst != ME and not packet.dst.startswith("ff"):
            continue
        if rebuilt(raw) != raw:
            raise SystemExit("not what Scapy builds: %s\n%s\n%s" % (packet.summary(), raw.hex(), rebuilt(raw).hex()))
        kind = tail(packet).name
        parsed[kind] = parsed.get(kind, 0) + 1
        if ICMPv6ND_NS in packet and packet[ICMPv6ND_NS].tgt == ME:
            advert = IPv6(src=ME, dst=packet.src, hlim=255) / ICMPv6ND_NA(tgt=ME, R=0, S=1, O=1)
            wire.send(ether + bytes(advert / ICMPv6NDOptDstLLAddr(lladdr=own)))
            continue
        return packet


def ask(kind, packets, accept):
    """Sends the packets and waits for a packet that accept() takes."""
    for packet in packets:
        wire.send(ether + bytes(packet))
    deadline = time.monotonic() + WAIT
    fragments = []
    while True:
        got = receive(deadline)
        if got is None:
            raise SystemExit("no answer to %s: %s" % (kind, bytes(packets[0]).hex()))
        if IPv6ExtHdrFragment in got:
            fragments.append(got)
            if got[IPv6ExtHdrFragment].m:
                continue
            whole = bytes(defragment6(fragments))
            fragments = []
            if rebuilt(whole) != whole:
                raise SystemExit("reassembled: not what Scapy builds: %s" % whole.hex())
            got = IPv6(whole)
        if accept(got):
            asked[kind] = asked.get(kind, 0) + 1
            return


def options():
    """Options that a host skips."""
    kinds = (lambda: PadN(optdata=bytes(random.randrange(6))), lambda: HBHOptUnknown(otype=0x1E, optdata=random.randbytes(random.randrange(12))))
    return [random.choice(kinds)() for _ in range(random.randrange(3))]


def chain(layer, size=0):
    """IPv6 with extension headers in a legal order, and layer in it."""
    packet = IPv6(src=ME, dst=addr, hlim=random.randrange(1, 256), fl=random.randrange(1 << 20), tc=random.randrange(64) << 2)
    if random.random() < 0.3:
        packet = packet / IPv6ExtHdrHopByHop(options=options())
    if random.random() < 0.3:
        packet = packet / IPv6ExtHdrDestOpt(options=options())
    if random.random() < 0.2:
        packet = packet / IPv6ExtHdrRouting(type=random.choice((0, 4, 253)), segleft=0, addresses=["2001:db8::9"])
    if size > 1200 or random.random() < 0.2:
        packet = packet / IPv6ExtHdrFragment(id=random.randrange(1 << 32))
    if random.random() < 0.3:
        packet = packet / IPv6ExtHdrDestOpt(options=options())
    packet = packet / layer
    return fragment6(packet, 1280) if len(bytes(packet)) > 1280 else [packet]


def bytes_of(limit):
    return random.randbytes(random.choice((0, 1, 7, 56, random.randrange(limit))))


def echo():
    data, ident, seq = bytes_of(5000), random.randrange(1 << 16), random.randrange(1 << 16)
    request = ICMPv6EchoRequest(id=ident, seq=seq, data=data)
    fits = lambda p: ICMPv6EchoReply in p and (p[ICMPv6EchoReply].id, p[ICMPv6EchoReply].seq, p[ICMPv6EchoReply].data) == (ident, seq, data)
    ask("echo", chain(request, len(data)), fits)


def udp():
    data, port = bytes_of(5000), random.randrange(1024, 65536)
    fits = lambda p: UDP in p and p[UDP].dport == port and p[UDP].sport == echo_port and bytes(p[UDP].payload) == data
    ask("UDP", chain(UDP(sport=port, dport=echo_port) / Raw(data), len(data)), fits)


def udp_closed():
    port = random.randrange(1024, 65536)
    question = IPv6(src=ME, dst=addr) / UDP(sport=port, dport=closed_port) / Raw(bytes_of(1000))
    fits = lambda p: ICMPv6DestUnreach in p and p[ICMPv6DestUnreach].code == 4 and bytes(p[ICMPv6DestUnreach].payload) == bytes(question)
    ask("unreachable", [question], fits)


def tcp():
    port, seq = random.randrange(1024, 65536), random.randrange(1 << 32)
    optional = random.choice(([], [("MSS", 1440)], [("MSS", 1220), ("SAckOK", b""), ("Timestamp", (random.randrange(1 << 32), 0)), ("NOP", None), ("WScale", 7)]))
    fits = lambda p: TCP in p and p[TCP].dport == port and p[TCP].flags == "SA" and p[TCP].ack == (seq + 1) % 2**32
    ask("SYN", chain(TCP(sport=port, dport=echo_port, seq=seq, flags="S", options=optional)), fits)
    wire.send(ether + bytes(IPv6(src=ME, dst=addr) / TCP(sport=port, dport=echo_port, seq=(seq + 1) % 2**32, flags="R")))


def tcp_closed():
    port, seq = random.randrange(1024, 65536), random.randrange(1 << 32)
    fits = lambda p: TCP in p and p[TCP].dport == port and p[TCP].flags == "RA" and p[TCP].ack == (seq + 1) % 2**32
    ask("RST", chain(TCP(sport=port, dport=closed_port, seq=seq, flags="S")), fits)


def solicit():
    group = "ff02::1:ff" + addr_tail()
    to = random.choice((addr, group))
    question = IPv6(src=ME, dst=to, hlim=255) / ICMPv6ND_NS(tgt=addr) / ICMPv6NDOptSrcLLAddr(lladdr=own)
    fits = lambda p: ICMPv6ND_NA in p and p[ICMPv6ND_NA].tgt == addr and (to == addr or p[ICMPv6NDOptDstLLAddr].lladdr == mac)
    ask("NS", [question], fits)


def addr_tail():
    raw = socket.inet_pton(socket.AF_INET6, addr)
    return "%02x:%02x%02x" % tuple(raw[13:])


def bad_option():
    """An unknown option whose action is: discard and report."""
    question = IPv6(src=ME, dst=addr) / IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x9E, optdata=bytes(4))]) / UDP(sport=1, dport=echo_port)
    fits = lambda p: ICMPv6ParamProblem in p and (p[ICMPv6ParamProblem].code, p[ICMPv6ParamProblem].ptr) == (2, 42)
    ask("unknown option", [question], fits)


def bad_header():
    nxt = random.choice((61, 99, 114, 253, 254))
    question = IPv6(src=ME, dst=addr, nh=nxt) / Raw(bytes_of(500))
    fits = lambda p: ICMPv6ParamProblem in p and (p[ICMPv6ParamProblem].code, p[ICMPv6ParamProblem].ptr) == (1, 6)
    ask("unknown header", [question], fits)


def routing0():
    question = IPv6(src=ME, dst=addr) / IPv6ExtHdrRouting(type=0, segleft=1, addresses=["2001:db8::1"]) / ICMPv6EchoRequest()
    fits = lambda p: ICMPv6ParamProblem in p and (p[ICMPv6ParamProblem].code, p[ICMPv6ParamProblem].ptr) == (0, 42)
    ask("routing header 0", [question], fits)


def quoted():
    return IPv6(src=addr, dst=ME) / random.choice((UDP(sport=echo_port), TCP(sport=echo_port), ICMPv6EchoRequest())) / Raw(bytes_of(64))


def ext():
    return random.choice((IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt, IPv6ExtHdrRouting, IPv6ExtHdrFragment))


def fuzzed():
    """A packet of random fields: IPv6 or an extension header or the transport or all of them."""
    kind = random.randrange(7)
    base = IPv6(src=random.choice((ME, "fe80::77", "2001:db8:%x::1" % random.randrange(1 << 16))), dst=random.choice((addr, addr, "ff02::1")))
    icmp = random.choice((ICMPv6EchoRequest, ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded, ICMPv6ParamProblem, ICMPv6MLQuery2, ICMPv6MLReport2))
    nd = random.choice((ICMPv6ND_NS, ICMPv6ND_NA, ICMPv6ND_RA, ICMPv6ND_Redirect))
    option = random.choice((ICMPv6NDOptSrcLLAddr, ICMPv6NDOptDstLLAddr, ICMPv6NDOptPrefixInfo, ICMPv6NDOptMTU))
    if kind == 0:
        return base / fuzz(UDP(dport=random.choice((echo_port, closed_port)))) / Raw(bytes_of(1000))
    if kind == 1:
        return base / fuzz(TCP(dport=random.choice((echo_port, closed_port)))) / Raw(bytes_of(1000))
    if kind == 2:
        return base / fuzz(icmp()) / quoted()
    if kind == 3:
        return IPv6(src=base.src, dst=base.dst, hlim=255) / fuzz(nd()) / fuzz(option())
    if kind == 4:
        return base / fuzz(ext()()) / fuzz(ext()()) / fuzz(UDP(dport=echo_port)) / Raw(bytes_of(500))
    if kind == 5:
        return base / fuzz(IPv6ExtHdrFragment(id=random.randrange(4))) / Raw(bytes_of(1200))
    return fuzz(IPv6(dst=base.dst)) / fuzz(ext()()) / fuzz(icmp())


QUESTIONS = (echo, udp, udp_closed, tcp, tcp_closed, solicit, bad_option, bad_header, routing0)
for i in range(count):
    QUESTIONS[i % len(QUESTIONS)]()

unbuilt = sent = 0
for i in range(count):
    try:
        raw = bytes(fuzzed())[:1500]
    except Exception:  # fuzz() sometimes draws a packet that Scapy cannot build
        unbuilt += 1
        continue
    wire.send(ether + raw)
    sent += 1
while receive(time.monotonic() + 1) is not None:
    pass
begin = time.monotonic()
echo()
print(json.dumps({"asked": asked, "parsed": parsed, "fuzzed": sent, "unbuilt": unbuilt, "after": time.monotonic() - begin}))
