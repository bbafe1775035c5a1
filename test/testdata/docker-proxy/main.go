// Docker-proxy does what a container engine's userland proxy of that name does. $TO
// is where it leads in truth; by default, where it says.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
)

func main() {
	proto := flag.String("proto", "tcp", "")
	hostIP := flag.String("host-ip", "", "")
	hostPort := flag.String("host-port", "", "")
	containerIP := flag.String("container-ip", "", "")
	containerPort := flag.String("container-port", "", "")
	flag.Parse()
	to := net.JoinHostPort(*containerIP, *containerPort)
	if other := os.Getenv("TO"); other != "" {
		to = other
	}
	serve := serveTCP
	if *proto == "udp" {
		serve = serveUDP
	}
	if err := serve(net.JoinHostPort(*hostIP, *hostPort), to); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serveTCP(at, to string) error {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		client, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer client.Close()
			server, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			defer server.Close()
			go func() { _, _ = io.Copy(server, client) }()
			_, _ = io.Copy(client, server)
		}()
	}
}

func serveUDP(at, to string) error {
	l, err := net.ListenPacket("udp", at)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	servers := map[string]net.Conn{}
	buf := make([]byte, 1<<16)
	for {
		n, client, err := l.ReadFrom(buf)
		if err != nil {
			return err
		}
		server := servers[client.String()]
		if server == nil {
			if server, err = net.Dial("udp", to); err != nil {
				continue
			}
			servers[client.String()] = server
			go answer(l, client, server)
		}
		_, _ = server.Write(buf[:n])
	}
}

func answer(l net.PacketConn, client net.Addr, server net.Conn) {
	buf := make([]byte, 1<<16)
	for {
		n, err := server.Read(buf)
		if err != nil {
			continue // refused
		}
		_, _ = l.WriteTo(buf[:n], client)
	}
}
