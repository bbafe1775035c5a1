package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// patience ends a wait for what never comes.
const patience = 3 * time.Minute

// echo sends back what comes, by TCP and UDP.
func echo(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	_ = pc.(*net.UDPConn).SetReadBuffer(8 << 20) // as far as the system allows
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err == nil {
				_, _ = pc.WriteTo(buf[:n], from)
			}
		}
	}()
	fmt.Println("echo: ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

// sizes are of datagrams. Those around 1400 bytes fill packets of the pods' MTU.
var sizes = []int{1, 2, 3, 511, 1379, 1380, 1381, 1402, 1403, 1472, 1473, 8000, 32_769, 60_000}

// step is something to have a server send back.
type step struct {
	what string
	do   func() error
}

// carry has a server send back a stream and datagrams, or a little on each of many
// flows, and says how long each took.
func carry(addr string, flows int) error {
	steps := []step{{"a stream by TCP", func() error { return carryStream(addr, 4<<20) }}}
	for _, size := range sizes {
		steps = append(steps, step{fmt.Sprint(size, " bytes by UDP"), func() error { return carryDatagrams(addr, size, 5) }})
	}
	if flows > 0 {
		steps = []step{
			{fmt.Sprint(flows, " connections"), func() error {
				return atOnce(flows, 20, func() error { return carryStream(addr, 100) })
			}},
			{fmt.Sprint(flows, " UDP sockets"), func() error { return carryManySockets(addr, flows) }},
		}
	}
	for _, s := range steps {
		start := time.Now()
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
		fmt.Printf("%s: %.3f s\n", s.what, time.Since(start).Seconds())
	}
	return nil
}

// carryManySockets has a datagram come back on each of many sockets, which are all open
// at the end.
func carryManySockets(addr string, flows int) error {
	conns := make(chan net.Conn, flows)
	err := atOnce(flows, 20, func() error {
		c, err := net.Dial("udp", addr)
		if err != nil {
			return err
		}
		conns <- c
		return exchange(c, 100)
	})
	for range len(conns) {
		(<-conns).Close()
	}
	return err
}

// atOnce calls f n times, and so many times at once, until it fails.
func atOnce(n, atOnce int, f func() error) error {
	slots, failed := make(chan struct{}, atOnce), make(chan error, atOnce)
	for range n {
		select {
		case slots <- struct{}{}:
		case err := <-failed:
			return err
		}
		go func() {
			if err := f(); err != nil {
				failed <- err
			}
			<-slots
		}()
	}
	for range atOnce { // until none is under way
		select {
		case slots <- struct{}{}:
		case err := <-failed:
			return err
		}
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func carryStream(addr string, size int) error {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	want := pattern(size)
	go func() {
		_, _ = c.Write(want)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%d bytes came back, not the %d that were sent", len(got), len(want))
	}
	return err
}

func carryDatagrams(addr string, size, count int) error {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	for range count {
		if err := exchange(c, size); err != nil {
			return err
		}
	}
	return nil
}

// exchange sends a datagram until it comes back: a busy machine loses some.
func exchange(c net.Conn, size int) error {
	want, buf := pattern(size), make([]byte, 1<<16)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err := c.Write(want); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		n, err := c.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			return err
		case bytes.Equal(buf[:n], want):
			return nil
		default:
			return fmt.Errorf("%d other bytes came back", n)
		}
	}
	return fmt.Errorf("nothing came back within %s", patience)
}

func pattern(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}
