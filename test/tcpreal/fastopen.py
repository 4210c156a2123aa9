"""Linux's Fast Open: `client HOST PORT` or `server PORT`, several connections, one JSON line each."""

import json
import socket
import sys

ROUNDS = 3
SYN_DATA = 32  # TCPI_OPT_SYN_DATA of linux/tcp.h


def syn_data(s):
    return (s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[5] & SYN_DATA) != 0


def report(s, text):
    print(json.dumps({"text": text.decode(), "synData": syn_data(s)}), flush=True)


def client(host, port):
    for i in range(ROUNDS):
        with socket.socket() as s:
            # Blocking: with a timeout, the request for a cookie ends with EINPROGRESS.
            s.sendto(b"round %d" % i, socket.MSG_FASTOPEN, (host, port))
            s.settimeout(5)
            report(s, s.recv(100))


def server(port):
    with socket.socket() as head:
        head.settimeout(10)
        head.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        head.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 8)
        head.bind(("", port))
        head.listen(8)
        print("{}", flush=True)
        for _ in range(ROUNDS):
            s, _ = head.accept()
            with s:
                s.settimeout(5)
                text = s.recv(100)
                s.sendall(text)
                report(s, text)
                s.recv(1)


if sys.argv[1] == "client":
    client(sys.argv[2], int(sys.argv[3]))
else:
    server(int(sys.argv[2]))
