"""Servers that answer every message with the address of the peer they see.

usage: peers.py KIND/ADDRESS/PORT...   KIND: tcp, udp, udp-connected, which
answers each client from a connected socket of its own, as DTLS servers do, udp-late,
which answers all whenever somebody on 127.0.0.1 asks, tcp-proxy or udp-proxy,
which pass everything on to $PROXIED, an address without its port, 80; tcp6 and
udp6 are servers for IPv6 alone; tcp-held and udp-held never answer: they hold a
port for NAT, as container engines do
       peers.py ask KIND FROM TO PORT  a client that prints the answer
$PEER_NAME, where it is set, is the beginning of each answer.

Where $SAY is set, that is the answer instead.
"""
import ctypes
import os
import socket
import struct
import sys
import threading


def name(peer):
    if "SAY" in os.environ:
        return os.environ["SAY"].encode()
    host = peer[0].removeprefix("::ffff:")
    seen = f"[{host}]:{peer[1]}" if ":" in host else f"{host}:{peer[1]}"
    return (os.environ.get("PEER_NAME", "") + seen).encode()


def drop_all(s):
    """The kernel drops all that comes (SO_ATTACH_FILTER, socket(7))."""
    drop = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # ret #0
    s.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", 1, ctypes.addressof(drop)))


def bind(kind, address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM if kind.startswith("tcp") else socket.SOCK_DGRAM)
    if kind.endswith("6"):
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if kind.endswith("held"):
        drop_all(s)
    s.bind((address, port))
    return s


def answer(conn, peer):
    with conn:
        try:
            while conn.recv(4096):
                conn.sendall(name(peer))
        except OSError:
            pass


def serve_tcp(s, client=answer):
    while True:
        threading.Thread(target=client, args=s.accept(), daemon=True).start()


def serve_udp(s):
    while True:
        _, peer = s.recvfrom(4096)
        try:
            s.sendto(name(peer), peer)
        except OSError:  # no way to this one
            pass


def serve_udp_connected(s):
    while True:
        _, peer = s.recvfrom(4096)
        own = bind("udp", *s.getsockname()[:2])
        own.connect(peer)
        own.send(name(peer))
        threading.Thread(target=answer, args=(own, peer), daemon=True).start()


def serve_udp_late(s):
    clients = []
    while True:
        _, peer = s.recvfrom(4096)
        clients.append(peer)
        if not name(peer).startswith(b"127."):
            print("peers: late", flush=True)
            continue
        for client in clients:
            s.sendto(name(client), client)
        clients.pop()


def proxy(conn, peer):
    with conn, socket.create_connection((os.environ["PROXIED"], 80)) as server:
        while data := conn.recv(4096):
            server.sendall(data)
            conn.sendall(server.recv(4096))


def serve_tcp_proxy(s):
    serve_tcp(s, proxy)


def give_back(s, server, client):
    while True:
        s.sendto(server.recv(4096), client)


def serve_udp_proxy(s):
    servers = {}
    while True:
        data, client = s.recvfrom(4096)
        if client not in servers:
            server = servers[client] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.connect((os.environ["PROXIED"], 80))
            threading.Thread(target=give_back, args=(s, server, client), daemon=True).start()
        servers[client].send(data)


def serve_nobody(s):
    threading.Event().wait()


def ask(kind, source, to, port):
    with bind(kind, source, 0) as s:
        tries, patience = (60, 1) if kind.startswith("udp") else (1, 60)
        s.settimeout(patience)
        s.connect((to, int(port)))
        for _ in range(tries):
            s.send(b"who am I?")
            try:
                print(s.recv(4096).decode())
                return
            except TimeoutError:
                pass


if sys.argv[1] == "ask":
    ask(*sys.argv[2:])
    sys.exit()

serve = {"tcp": serve_tcp, "udp": serve_udp, "udp-connected": serve_udp_connected, "udp-late": serve_udp_late,
         "tcp-proxy": serve_tcp_proxy, "udp-proxy": serve_udp_proxy, "tcp6": serve_tcp, "udp6": serve_udp,
         "tcp-held": serve_nobody, "udp-held": serve_nobody}
for arg in sys.argv[1:]:
    kind, address, port = arg.split("/")
    s = bind(kind, address, int(port))
    if kind.startswith("tcp"):
        s.listen(100)
    threading.Thread(target=serve[kind], args=(s,)).start()
print("peers: ready", flush=True)
