package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"strings"
	"time"
)

// A stream is a random block again and again; its odd length keeps it from
// repeating at any page or segment.
type repeat struct {
	block []byte
	at    int
}

func (r *repeat) Read(p []byte) (int, error) {
	n := copy(p, r.block[r.at:])
	r.at = (r.at + n) % len(r.block)
	return n, nil
}

func stream(n int64) io.Reader {
	block := make([]byte, 1<<20+7)
	rand.New(rand.NewSource(n)).Read(block)
	return io.LimitReader(&repeat{block: block}, n)
}

func who(network, addr string) error {
	var last error
	for end := time.Now().Add(200 * time.Second); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		c, err := net.DialTimeout(network, addr, 5*time.Second)
		if err != nil {
			last = err
			continue
		}
		c.SetDeadline(time.Now().Add(60 * time.Second)) // the kernel may load modules first
		fmt.Fprint(c, "peer\n")
		buf := make([]byte, 300)
		n, err := c.Read(buf)
		local := c.LocalAddr()
		c.Close()
		if err != nil {
			last = err
			continue
		}
		fmt.Printf("%s me=%s\n", strings.TrimSpace(string(buf[:n])), local)
		return nil
	}
	return last
}

func bulk(addr string, n int64) error {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(280 * time.Second))
	start := time.Now()
	fmt.Fprintf(c, "bulk %d\n", n)
	h := sha256.New()
	if _, err := io.Copy(c, io.TeeReader(stream(n), h)); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if want := fmt.Sprintf("%d %x\n", n, h.Sum(nil)); line != want {
		return fmt.Errorf("the server got %q, not %q", line, want)
	}
	back := sha256.New()
	got, err := io.Copy(back, r)
	if err != nil || got != n || string(back.Sum(nil)) != string(h.Sum(nil)) {
		return fmt.Errorf("back came %d bytes, sums equal: %v: %v", got, string(back.Sum(nil)) == string(h.Sum(nil)), err)
	}
	fmt.Printf("ok %d MB both ways in %.1f s\n", n>>20, time.Since(start).Seconds())
	return nil
}

func udpBulk(addr string, n int) error {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	buf, lost := make([]byte, 65536), 0
	for i := range n {
		msg := make([]byte, 100+i*977%1300)
		rand.New(rand.NewSource(int64(i))).Read(msg)
		c.Write(msg)
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		m, err := c.Read(buf)
		if err != nil {
			lost++
		} else if string(buf[:m]) != string(msg) {
			return fmt.Errorf("datagram %d came back changed", i)
		}
	}
	fmt.Printf("ok %d of %d\n", n-lost, n)
	if lost*10 > n {
		return errors.New("too many lost")
	}
	return nil
}
