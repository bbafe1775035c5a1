"""Attacks of a server on the host that has given it a socket: they try to reach
127.0.0.1:TARGET there.

usage: attacks.py NAME TARGET PORT UDPPORT
TCP port 80 is published at PORT, UDP port 53 at UDPPORT. The last line says what
came of the tries: "attacked TRIES RESULT=COUNT ...".
"""
import collections
import ctypes
import errno
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import sys
import threading
import time

NAME = sys.argv[1]
TARGET, PORT, UDP_PORT = map(int, sys.argv[2:])
MSG_FASTOPEN = 0x20000000
SYS_IO_URING_SETUP, SYS_IO_URING_ENTER = 425, 426

libc = ctypes.CDLL(None, use_errno=True)
results = collections.Counter()


def sockaddr(port, family=socket.AF_INET):
    raw = struct.pack("=H", family) + struct.pack("!H4s8x", port, socket.inet_aton("127.0.0.1"))
    return ctypes.create_string_buffer(raw, len(raw))


target, unspec = sockaddr(TARGET), sockaddr(0, socket.AF_UNSPEC)


def count(rc):
    """counts one try by its result, as system calls of libc return it"""
    result = "OK" if rc >= 0 else errno.errorcode[ctypes.get_errno()]
    results[result] += 1
    return result


def connect(fd, address=target):
    return count(libc.connect(fd, address, 16))


def host_socket():
    """a listening socket of the host"""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", 80))
    s.listen(100)
    if s.getsockname()[1] != PORT:
        sys.exit(f"the server has port {s.getsockname()[1]}, not the host's")
    print("native", flush=True)
    return s


def unconnected():
    """a socket of the host that could be connected: it no longer listens"""
    s = host_socket()
    s.shutdown(socket.SHUT_RDWR)
    return s


def race(attack, *flips, seconds=0.7, least=120):
    """attacks again and again while each flip runs in a thread of its own, for some
    time, and some times, on a machine that is busy"""
    ended = threading.Event()

    def repeat(flip):
        while not ended.is_set():
            flip()

    threads = [threading.Thread(target=repeat, args=(f,)) for f in flips]
    for t in threads:
        t.start()
    start, times = time.monotonic(), 0
    while (took := time.monotonic() - start) < seconds or times < least and took < 60:
        attack()
        times += 1
    ended.set()
    for t in threads:
        t.join()


def swapping(number, *sockets):
    """puts one socket after the other behind a descriptor"""

    def flip():
        for s in sockets:
            os.dup2(s.fileno(), number)

    return flip


def af_unspec():
    s = host_socket()
    connect(s.fileno(), unspec)
    connect(s.fileno())


def shut_down():
    connect(unconnected().detach())


def fd_swap():
    host = unconnected()
    number = os.dup(host.fileno())
    for kind in (socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_STREAM):
        race(lambda: connect(number), swapping(number, socket.socket(*kind), host))


def family_flip():
    host = unconnected()
    address = sockaddr(TARGET)

    def flip():
        for family in socket.AF_INET, socket.AF_UNIX, socket.AF_INET, socket.AF_UNSPEC:
            struct.pack_into("=H", address, 0, family)

    race(lambda: connect(host.fileno(), address), flip)
    number = os.dup(host.fileno())
    race(lambda: connect(number, address), flip, swapping(number, socket.socket(type=socket.SOCK_DGRAM), host))
    unreadable(host)


def unreadable(host):
    """takes the address away and gives it back, for who reads it in between"""
    page = mmap.mmap(-1, mmap.PAGESIZE)
    page[:16] = target.raw
    address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(page)))

    def flip():
        for protection in mmap.PROT_READ, 0:
            libc.mprotect(address, ctypes.c_size_t(mmap.PAGESIZE), protection)

    race(lambda: connect(host.fileno(), address), flip)


def io_uring():
    host = unconnected()
    params = ctypes.create_string_buffer(120)  # struct io_uring_params
    ring = libc.syscall(SYS_IO_URING_SETUP, 1, params)
    if count(ring) != "OK":
        return
    submit(ring, params, host.fileno())
    if count(libc.syscall(SYS_IO_URING_ENTER, ring, 1, 1, 1, None, 0)) == "OK":
        time.sleep(0.2)


def submit(ring, params, fd):
    """puts connect into the queue: IORING_OP_CONNECT, see io_uring(7)"""
    entries = struct.unpack_from("=I", params, 0)[0]
    tail, _, _, _, _, array = struct.unpack_from("=6I", params, 44)
    queue = mmap.mmap(ring, array + 4 * entries, offset=0)
    submissions = mmap.mmap(ring, 64 * entries, offset=0x10000000)
    struct.pack_into("=BBHiQQ", submissions, 0, 16, 0, 0, fd, 16, ctypes.addressof(target))
    struct.pack_into("=I", queue, array, 0)
    struct.pack_into("=I", queue, tail, 1)


def accepted(listener):
    """a connected socket of the host: other than the listener, it would lose its port"""
    c, _ = listener.accept()
    if c.getsockname()[1] != PORT:
        sys.exit(f"the connection came to {c.getsockname()}")
    return c


def rebound():
    s = host_socket()
    for unconnect in connect, unconnect_by_race:
        c = accepted(s)
        unconnect(c.fileno(), unspec)
        connect(c.fileno())
        count(libc.bind(c.fileno(), sockaddr(0), 16))
        connect(c.fileno())


def unconnect_by_race(number, address):
    """disconnects a descriptor that leads to a socket of the namespace for half the time"""
    c, other = socket.socket(fileno=os.dup(number)), socket.socket(type=socket.SOCK_DGRAM)
    race(lambda: connect(number, address), swapping(number, other, c))
    os.dup2(c.fileno(), number)


def udp():
    host_socket()
    s = socket.socket(type=socket.SOCK_DGRAM)
    s.bind(("0.0.0.0", 53))
    if s.getsockname()[1] == UDP_PORT:
        print("it is the host's", flush=True)
    for _ in range(10):
        count(libc.sendto(s.fileno(), b"x", 1, 0, target, 16))
        connect(s.fileno())
        count(libc.send(s.fileno(), b"x", 1, 0))
        connect(s.fileno(), unspec)


class iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("len", ctypes.c_size_t)]


class msghdr(ctypes.Structure):
    """struct mmsghdr, which begins with struct msghdr"""
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.POINTER(iovec)), ("iovlen", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int), ("sent", ctypes.c_uint)]


def fastopen():
    iov = iovec(b"x", 1)
    message = msghdr(name=ctypes.addressof(target), namelen=16, iov=ctypes.pointer(iov), iovlen=1, flags=MSG_FASTOPEN)
    for flags in MSG_FASTOPEN | socket.MSG_NOSIGNAL, socket.MSG_NOSIGNAL:
        for send in (
            lambda fd: libc.sendto(fd, b"x", 1, flags, target, 16),
            lambda fd: libc.sendmsg(fd, ctypes.byref(message), flags),
            lambda fd: libc.sendmmsg(fd, ctypes.byref(message), 1, flags),
        ):
            with unconnected() as s:
                count(send(s.fileno()))


def client(blocking=True):
    s = socket.socket()
    s.setblocking(blocking)
    return s


def expect(what, got, want):
    print(what, "as it should be" if got == want else f"{got}, not {want}", flush=True)


def clients():
    """an ordinary client, with servers inside"""
    host_socket()
    server = socket.create_server(("127.0.0.1", 81))
    s = client()
    expect("blocking", connect(s.fileno(), sockaddr(81)), "OK")
    expect("still blocking", fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK, 0)
    expect("its peer", server.accept()[1], s.getsockname())
    expect("connected again", connect(s.fileno(), sockaddr(81)), "EISCONN")
    s = client()
    expect("refused", connect(s.fileno(), sockaddr(82)), "ECONNREFUSED")
    expect("refused again", connect(s.fileno(), sockaddr(82)), "ECONNREFUSED")
    expect("nonblocking", finish(81), 0)
    expect("refused, nonblocking", finish(82), errno.ECONNREFUSED)
    full = full_listener()
    expect("interrupted", timed(interrupted, full), "TimeoutError")
    expect("SO_SNDTIMEO", timed(limited, full), "EINPROGRESS")


def finish(port):
    s = client(blocking=False)
    result = connect(s.fileno(), sockaddr(port))
    if result == "EINPROGRESS":
        if not select.select([], [s], [], 60)[1]:
            return "no answer"
        return s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return 0 if result == "OK" else getattr(errno, result)


waiting = []  # keeps the connections that fill the backlog


def full_listener():
    s = socket.create_server(("127.0.0.1", 83), backlog=0)
    waiting.append(s)
    for _ in range(4):
        waiting.append(client(blocking=False))
        waiting[-1].connect_ex(("127.0.0.1", 83))
    time.sleep(0.1)
    return ("127.0.0.1", 83)


def timed(call, *args):
    """calls what is to end after half a second, and not when the kernel gives up, 127 s after the first SYN"""
    start = time.monotonic()
    result = call(*args)
    took = time.monotonic() - start
    return result if 0.4 < took < 100 else f"{result} after {took} s"


def interrupted(address):
    def on_alarm(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        return client().connect(address)
    except OSError as e:
        return type(e).__name__


def limited(address):
    s = client()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 500000))
    return errno.errorcode[s.connect_ex(address)]


sys.setswitchinterval(1e-5)
globals()[NAME]()
print("attacked", results.total(), *(f"{result}={n}" for result, n in results.items()), flush=True)
