"""A name server on port 53 of an address, 127.0.0.1 unless one is given: TXT of
N.test is N strings of 200 letters."""

import socket
import struct
import sys
import threading


def answer(query, room):
    end = query.index(b"\0", 12) + 5
    pieces = int(query[13 : 13 + query[12]])
    piece = b"\xc8" + b"x" * 200
    data = piece * pieces
    flags, count, body = 0x8180, 1, b"\xc0\x0c\0\x10\0\1\0\0\0\0" + struct.pack("!H", len(data)) + data
    if 12 + end - 12 + len(body) > room:
        flags, count, body = flags | 0x0200, 0, b""  # truncated
    return query[:2] + struct.pack("!HHHHH", flags, 1, count, 0, 0) + query[12:end] + body


def udp():
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind(address)
    while True:
        query, peer = s.recvfrom(4096)
        s.sendto(answer(query, 4096), peer)


def tcp(s):
    while True:
        threading.Thread(target=serve, args=(s.accept()[0],)).start()


def serve(c):
    with c, c.makefile("rwb") as f:
        while size := f.read(2):
            a = answer(f.read(*struct.unpack("!H", size)), 65535)
            f.write(struct.pack("!H", len(a)) + a)
            f.flush()


family, _, _, _, address = socket.getaddrinfo(*(sys.argv[1:] or ["127.0.0.1"]), 53, type=socket.SOCK_STREAM)[0]
listener = socket.create_server(address, family=family)  # before anybody is answered over UDP
threading.Thread(target=udp, daemon=True).start()
tcp(listener)
