"""Servers that bind port 80 in the ways that programs do, and answer every
connection with the address of the peer they see.

usage: binds.py MODE [ARGUMENT]
"""
import ctypes
import errno
import mmap
import os
import select
import signal
import socket
import struct
import sys
import threading
import time


def name(peer):
    host = peer[0].removeprefix("::ffff:")
    return f"<[{host}]:{peer[1]}>" if ":" in host else f"<{host}:{peer[1]}>"


def answer(c):
    try:
        body = name(c.getpeername()).encode()
        c.recv(4096)
        c.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        c.close()
    except OSError:
        pass


def serve(s):
    while True:
        try:
            c, _ = s.accept()
        except OSError as e:
            print("accept:", errno.errorcode[e.errno], flush=True)
            time.sleep(1000)
        threading.Thread(target=answer, args=(c,), daemon=True).start()


def fresh(family=socket.AF_INET, v6only=None):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if v6only is not None:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    return s


def listening(s, address="0.0.0.0", port=80):
    s.bind((address, port))
    s.listen(100)
    print("bound to", s.getsockname()[1], flush=True)
    return s


def attempt(what, s, address, port=80):
    try:
        s.bind((address, port))
        print(what, "OK", flush=True)
    except OSError as e:
        print(what, errno.errorcode[e.errno], flush=True)


def plain():
    serve(listening(fresh()))


def loopback():
    serve(listening(fresh(), "127.0.0.1"))


def dual():
    serve(listening(fresh(socket.AF_INET6, 0), "::"))


def v6only():
    serve(listening(fresh(socket.AF_INET6, 1), "::"))


def both():
    threading.Thread(target=serve, args=(listening(fresh(socket.AF_INET6, 1), "::"),)).start()
    plain()


def duplicated():
    s = fresh()
    other = s.dup()
    listening(s)
    s.close()
    serve(other)


def epoll():
    s, other = fresh(), fresh()
    s.setblocking(False)
    loop = select.epoll()
    loop.register(other.fileno(), select.EPOLLIN)
    loop.register(s.fileno(), 0)
    listening(s)
    loop.modify(s.fileno(), select.EPOLLIN)
    while True:
        for fd, _ in loop.poll():
            if fd == s.fileno():
                answer(s.accept()[0])


def thread():
    s = fresh()
    t = threading.Thread(target=listening, args=(s,))
    t.start()
    t.join()
    serve(s)


def fork_after():
    s = listening(fresh())
    for _ in range(3):
        if os.fork() == 0:
            serve(s)
    s.close()
    time.sleep(1000)


def fork_before():
    s = fresh()
    if os.fork() == 0:
        time.sleep(1000)
    serve(listening(s, port=int(sys.argv[2]) if len(sys.argv) > 2 else 80))


def executed():
    s = listening(fresh())
    os.set_inheritable(s.fileno(), True)
    os.execvp("python3", ["python3", "-B", sys.argv[0], "inherited", str(s.fileno())])


def inherited():
    serve(socket.socket(fileno=int(sys.argv[2])))


def close_on_exec():
    s = fresh()
    print("before:", s.get_inheritable(), flush=True)
    listening(s)
    print("after:", s.get_inheritable(), flush=True)
    serve(s)


def other_user():
    os.setgid(1000)
    os.setuid(1000)
    serve(listening(fresh(), port=int(sys.argv[2])))


def hidden():
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
    plain()


def workers():
    for _ in range(2):
        if os.fork() == 0:
            break
    s = fresh()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    serve(listening(s))


def errors():
    s = fresh()
    attempt("foreign:", s, "203.0.113.99")
    listening(s)
    attempt("again:", s, "0.0.0.0")
    attempt("another:", fresh(), "0.0.0.0")
    attempt("unpublished:", fresh(), "0.0.0.0", 81)
    if os.fork() == 0:
        s.close()
        os.setgid(1000)
        os.setuid(1000)
        attempt("unprivileged:", fresh(), "0.0.0.0")
        os._exit(0)
    os.wait()
    serve(s)


def options():
    s = fresh()
    s.settimeout(None)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50000)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening(s)
    print("options:", s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
          s.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
          os.get_blocking(s.fileno()), flush=True)
    serve(s)


def late():
    again = False

    def on_hup(*_):
        nonlocal again
        again = True

    signal.signal(signal.SIGHUP, on_hup)
    s = listening(fresh())
    threading.Thread(target=serve, args=(s,), daemon=True).start()
    while not again:
        time.sleep(0.01)
    s.close()
    os.execvp("python3", ["python3", "-B", sys.argv[0], "plain"])


def timer():
    """binds under a timer that is quicker than a swap. What has begun is not interrupted; before that it may be, now and then"""
    signal.signal(signal.SIGALRM, lambda *_: None)
    s = fresh()
    for tries in range(1, 101):
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        try:
            s.bind(("0.0.0.0", 80))
            break
        except InterruptedError:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    else:
        sys.exit(f"each of {tries} binds was interrupted")
    s.listen(100)
    print("bound to", s.getsockname()[1], "at try", tries, flush=True)
    serve(s)


def flood():
    """has a thousand threads bind the port again and again, beside a server"""
    s = listening(fresh())
    refused = threading.Semaphore(0)

    def bind():
        while True:
            with fresh() as other:
                try:
                    other.bind(("0.0.0.0", 80))
                except OSError:
                    refused.release()

    for _ in range(1000):
        threading.Thread(target=bind, daemon=True).start()
    for _ in range(3):
        refused.acquire()
    print("flooding", flush=True)
    serve(s)


def io_uring():
    """binds by IORING_OP_BIND (Linux 6.11), which no filter sees"""
    libc = ctypes.CDLL(None, use_errno=True)
    s = fresh()
    address = ctypes.create_string_buffer(struct.pack("=H", socket.AF_INET) + struct.pack(">H", 80) + bytes(12), 16)
    params = ctypes.create_string_buffer(120)  # struct io_uring_params
    ring = libc.syscall(425, 1, params)
    if ring >= 0:
        entries = struct.unpack_from("=I", params, 0)[0]
        tail, _, _, _, _, array = struct.unpack_from("=6I", params, 44)
        queue = mmap.mmap(ring, array + 4 * entries, offset=0)
        submissions = mmap.mmap(ring, 64 * entries, offset=0x10000000)
        struct.pack_into("=BBHiQQ", submissions, 0, 56, 0, 0, s.fileno(), 16, ctypes.addressof(address))
        struct.pack_into("=I", queue, array, 0)
        struct.pack_into("=I", queue, tail, 1)
        libc.syscall(426, ring, 1, 1, 1, None, 0)
    if s.getsockname()[1] == 0:
        print("io_uring: it does not bind", flush=True)
        time.sleep(1000)
    s.listen(100)
    print("bound to", s.getsockname()[1], flush=True)
    serve(s)


globals()[sys.argv[1]]()
