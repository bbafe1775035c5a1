package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// serve answers "peer" with the address of who asks, "bulk N" with the sum of the N
// bytes that follow and with as many, and every other datagram with itself.
func serve(port string) error {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	u, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	go serveUDP(u)
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go serveTCP(c)
	}
}

func serveUDP(u net.PacketConn) {
	buf := make([]byte, 65536)
	for {
		n, from, err := u.ReadFrom(buf)
		if err != nil {
			return
		}
		answer := buf[:n]
		if strings.HasPrefix(string(answer), "peer") {
			answer = []byte("peer=" + from.String())
		}
		_, _ = u.WriteTo(answer, from)
	}
}

func serveTCP(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return
	}
	f := strings.Fields(line)
	if len(f) != 2 || f[0] != "bulk" {
		fmt.Fprintf(c, "peer=%s\n", c.RemoteAddr())
		return
	}
	n, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return
	}
	h := sha256.New()
	got, _ := io.Copy(h, io.LimitReader(r, n))
	fmt.Fprintf(c, "%d %x\n", got, h.Sum(nil))
	_, _ = io.Copy(c, stream(n))
}

// dns answers all questions about an IPv4 address with one, and all others with none.
func dns(addr string, ip net.IP) error {
	if ip.To4() == nil {
		return errors.New("no IPv4 address")
	}
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := u.ReadFrom(buf)
		if err != nil {
			return err
		}
		if answer := dnsAnswer(buf[:n], ip.To4()); answer != nil {
			_, _ = u.WriteTo(answer, from)
		}
	}
}

// dnsAnswer is the message of RFC 1035 for a question.
func dnsAnswer(q []byte, ip net.IP) []byte {
	end := 12
	for end < len(q) && q[end] != 0 {
		end += int(q[end]) + 1
	}
	end += 5
	if len(q) < 12 || end > len(q) {
		return nil
	}
	answer := append([]byte{q[0], q[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, q[12:end]...)
	if binary.BigEndian.Uint16(q[end-4:]) == 1 { // A
		answer[7] = 1
		answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4)
		answer = append(answer, ip...)
	}
	return answer
}
