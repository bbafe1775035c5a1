// Command peer is both ends of the rig's connections: the servers in the containers'
// image, and the clients.
//
//	peer serve ADDR...      answers TCP and UDP on each address with the client's
//	peer proxy ADDR TO      passes TCP on, and prints the clients' addresses
//	peer ask tcp|udp ADDR   prints the answer, without its port
//	peer many N ADDR        asks so often over TCP, and prints "ANSWERED/N SEEN..."
//	peer hold ADDR FILE     asks over one connection once more whenever FILE appears
package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) > 1 && args[0] == "serve":
		return serve(args[1:])
	case len(args) == 3 && args[0] == "proxy":
		return proxy(args[1], args[2])
	case len(args) == 3 && args[0] == "ask":
		answer, err := ask(args[1], args[2])
		fmt.Println(answer)
		return err
	case len(args) == 3 && args[0] == "many":
		return many(args[1], args[2])
	case len(args) == 3 && args[0] == "hold":
		return hold(args[1], args[2])
	}
	return fmt.Errorf("usage: peer serve|proxy|ask|many|hold ARGUMENT..., see the source")
}

func serve(addrs []string) error {
	failed := make(chan error)
	for _, addr := range addrs {
		go func() { failed <- accept(addr, answerAll) }()
		go func() { failed <- serveUDP(addr) }()
	}
	return <-failed
}

func accept(addr string, handle func(net.Conn)) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			handle(c)
		}()
	}
}

func answerAll(c net.Conn) {
	buf := make([]byte, 1)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
		fmt.Fprint(c, client(c.RemoteAddr()))
	}
}

func serveUDP(addr string) error {
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for {
		_, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		_, _ = conn.WriteTo([]byte(client(from)), from)
	}
}

func client(a net.Addr) string {
	return netip.MustParseAddrPort(a.String()).Addr().Unmap().String()
}

func proxy(addr, to string) error {
	return accept(addr, func(c net.Conn) {
		fmt.Println("a client from", client(c.RemoteAddr()))
		up, err := net.Dial("tcp", to)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer up.Close()
		go func() { _, _ = io.Copy(up, c) }()
		_, _ = io.Copy(c, up)
	})
}

// ask repeats its question over UDP, because a datagram may be lost.
func ask(network, addr string) (answer string, err error) {
	conn, err := net.DialTimeout(network, addr, 10*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	tries := 1
	if network == "udp" {
		tries = 20
	}
	for range tries {
		if answer, err = once(conn, tries); err == nil {
			return answer, nil
		}
		time.Sleep(50 * time.Millisecond) // a refusal comes at once
	}
	return "", err
}

func once(conn net.Conn, tries int) (string, error) {
	if _, err := conn.Write([]byte("?")); err != nil {
		return "", err
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second / time.Duration(tries)))
	buf := make([]byte, 1500)
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}

func many(times, addr string) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	answered := 0
	var seen []string
	for range n {
		time.Sleep(10 * time.Millisecond) // for something to happen meanwhile
		answer, err := ask("tcp", addr)
		if err != nil {
			continue
		}
		answered++
		if !slices.Contains(seen, answer) {
			seen = append(seen, answer)
		}
	}
	fmt.Printf("%d/%d %v\n", answered, n, seen)
	return nil
}

func hold(addr, file string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	for {
		answer, err := once(conn, 1)
		if err != nil {
			return err
		}
		fmt.Println(answer)
		for _, err := os.Stat(file); err != nil; _, err = os.Stat(file) {
			time.Sleep(50 * time.Millisecond)
		}
		_ = os.Remove(file)
	}
}
