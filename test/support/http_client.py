"""What hostile tests of `tapnic serve` need: raw connections to 192.0.2.2, and a file system that hangs."""

import ctypes
import os
import signal
import socket
import struct
import sys
import threading
import time

ADDR = ('192.0.2.2', 80)


def conn(timeout=20):
    c = socket.create_connection(ADDR, timeout)
    c.settimeout(timeout)
    return c


def rest(c):
    """Reads to the end of the connection; a reset ends the bytes with b'RESET'."""
    out = bytearray()
    try:
        while True:
            d = c.recv(65536)
            if not d:
                break
            out += d
    except ConnectionResetError:
        out += b'RESET'
    return bytes(out)


def request(target, headers=(b'Host: x',), version=b'1.1', method=b'GET'):
    lines = [method + b' ' + target + b' HTTP/' + version, *headers, b'Connection: close']
    return b'\r\n'.join(lines) + b'\r\n\r\n'


def get(target, **options):
    """The whole answer."""
    with conn() as c:
        c.sendall(request(target, **options))
        return rest(c)


def status(answer):
    return int(answer.split(b' ', 2)[1])


def header(answer, name):
    for line in answer.split(b'\r\n\r\n', 1)[0].split(b'\r\n')[1:]:
        key, value = line.split(b': ', 1)
        if key.lower() == name.lower():
            return value
    return None


def body(answer):
    return answer.split(b'\r\n\r\n', 1)[1]


def keep(target):
    """A request that leaves the connection open."""
    return b'GET ' + target + b' HTTP/1.1\r\nHost: x\r\n\r\n'


# Operations of FUSE's protocol: /usr/include/linux/fuse.h.
LOOKUP, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR = (
    1, 3, 14, 15, 18, 25, 26, 27, 28, 29)
EVERYTHING = {LOOKUP, GETATTR, OPEN, READ, RELEASE, FLUSH, OPENDIR, READDIR, RELEASEDIR}


class Fuse:
    """A file system of files of 9,000 bytes, each called f and a number. It never answers the
    operations in `hang`."""

    def __init__(self, where):
        self.where = where.encode()
        self.hang = set()
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = os.open('/dev/fuse', os.O_RDWR)
        options = f'fd={self.fd},rootmode=40000,user_id=0,group_id=0,allow_other'.encode()
        if self.libc.mount(b'hang', self.where, b'fuse.hang', 0, options) != 0:
            raise OSError(ctypes.get_errno(), 'mount')
        threading.Thread(target=self.loop, daemon=True).start()

    def attr(self, ino):
        size, mode = (0, 0o40755) if ino == 1 else (9000, 0o100644)
        return struct.pack('<QQQQQQIIIIIIIIII', ino, size, 0, 1, 1, 1, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def answer(self, op, node, data):
        if op == INIT:
            return 0, struct.pack('<IIIIHHIIHHI7I', 7, 31, 0, 0, 16, 12, 131072, 1, 0, 0, 0, *([0] * 7))
        if op == LOOKUP:
            name = data.rstrip(b'\0')
            if not name.startswith(b'f') or not name[1:].isdigit():
                return -2, b''
            ino = int(name[1:]) + 2
            return 0, struct.pack('<QQQQII', ino, 0, 0, 0, 0, 0) + self.attr(ino)
        if op == GETATTR:
            return 0, struct.pack('<QII', 0, 0, 0) + self.attr(node)
        if op in (OPEN, OPENDIR):
            return 0, struct.pack('<QII', 1, 0, 0)
        if op == READ:
            _, off, size = struct.unpack_from('<QQI', data)
            return 0, (b'F' * 9000)[off:off + size]
        if op in (READDIR, RELEASE, FLUSH, RELEASEDIR):
            return 0, b''
        return -38, b''

    def loop(self):
        while True:
            try:
                message = os.read(self.fd, 1 << 20)
            except OSError:
                return
            _, op, unique, node = struct.unpack_from('<IIQQ', message)
            if op in self.hang or op in (2, 36, 42):  # forget, interrupt, batch forget: no answer
                continue
            error, out = self.answer(op, node, message[40:])
            try:
                os.write(self.fd, struct.pack('<IiQ', 16 + len(out), error, unique) + out)
            except OSError:
                pass

    def close(self):
        os.close(self.fd)
        self.libc.umount2(self.where, 2)


def main():
    """Mounts a Fuse. Each line on stdin is a list of operations that hang from then on."""
    fuse = Fuse(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print('mounted', flush=True)
    try:
        for line in sys.stdin:
            fuse.hang = EVERYTHING if line.strip() == 'all' else {READ}
            print('set', flush=True)
    finally:
        fuse.close()


if __name__ == '__main__':
    main()
