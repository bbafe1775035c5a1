package main

import (
	"fmt"
	"io"
	"net"
	"time"
)

// connectTries is for figures whose connections are made beforehand; the one
// that counts connections counts each failure.
const connectTries = 3

func message(op byte) []byte {
	msg := make([]byte, messageSize)
	msg[0] = op
	return msg
}

// exchange sends a message and reads the reply.
func exchange(c net.Conn, msg, reply []byte) error {
	if _, err := c.Write(msg); err != nil {
		return err
	}
	_, err := io.ReadFull(c, reply)
	return err
}

// dial connects, for the time of one exchange.
func (l Load) dial() (net.Conn, error) {
	network := "tcp4"
	if l.udp() {
		network = "udp4"
	}
	c, err := net.DialTimeout(network, l.Addr, grace)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(grace))
}

// each runs all clients at once, every one with a connection of its own, and
// returns how long that took.
func (l Load) each(client func(i int, c net.Conn, end time.Time) error) (time.Duration, error) {
	conns := make([]net.Conn, l.Clients)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	for i := range conns {
		var err error
		if conns[i], err = l.connected(); err != nil {
			return 0, fmt.Errorf("connection %d: %w", i+1, err)
		}
	}
	for _, c := range conns {
		if err := c.SetDeadline(time.Now().Add(l.Duration + grace)); err != nil {
			return 0, err
		}
	}
	return l.parallel(func(i int, end time.Time) error { return client(i, conns[i], end) })
}

// connected returns a connection that stands all the way to the server. To
// wait for it also spares backlogs: libslirp listens with one of 1.
func (l Load) connected() (net.Conn, error) {
	var err error
	for range connectTries {
		var c net.Conn
		if c, err = l.dial(); err != nil || l.udp() {
			return c, err
		}
		if err = exchange(c, message(opEcho), make([]byte, messageSize)); err == nil {
			return c, nil
		}
		c.Close()
	}
	return nil, err
}

// parallel runs all clients at once and returns how long that took, and
// the first error.
func (l Load) parallel(client func(i int, end time.Time) error) (time.Duration, error) {
	errs := make(chan error, l.Clients)
	start := time.Now()
	for i := range l.Clients {
		go func() { errs <- client(i, start.Add(l.Duration)) }()
	}
	var first error
	for range l.Clients {
		if err := <-errs; first == nil {
			first = err
		}
	}
	return time.Since(start), first
}
