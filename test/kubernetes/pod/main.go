// Command pod is what runs in the pods: as "pause" it holds a sandbox, as "serve"
// it says over TCP, UDP and HTTP who it is and who asks, as "send" it asks, and as
// "ask" it measures how soon there is an answer.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if filepath.Base(os.Args[0]) == "pause" {
		pause()
	}
	if len(os.Args) < 2 {
		fail("usage: pod serve PORT | pod send tcp|udp ADDRESS [BYTES [COUNT]] | pod ask tcp|udp ADDRESS COUNT")
	}
	switch os.Args[1] {
	case "serve":
		serve(os.Args[2])
	case "send":
		send(os.Args[2], os.Args[3], os.Args[4:])
	case "ask":
		n, err := strconv.Atoi(os.Args[4])
		check(err)
		ask(os.Args[2], os.Args[3], n)
	}
}

// pause reaps orphans until it is told to go.
func pause() {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT)
	for s := range c {
		if s != syscall.SIGCHLD {
			os.Exit(0)
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

// serve answers HTTP and datagrams on PORT; on PORT+1 it sends back what it gets,
// over TCP and UDP.
func serve(port string) {
	name, _ := os.Hostname()
	n, err := strconv.Atoi(port)
	check(err)
	next := strconv.Itoa(n + 1)
	words := func(from string) string { return fmt.Sprintf("I am %s, you are %s\n", name, from) }
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT)
	go func() { <-c; os.Exit(0) }()
	go func() {
		p, err := net.ListenPacket("udp", ":"+port)
		check(err)
		b := make([]byte, 65536)
		for {
			_, from, err := p.ReadFrom(b)
			check(err)
			p.WriteTo([]byte(words(from.String())), from)
		}
	}()
	go func() {
		p, err := net.ListenPacket("udp", ":"+next)
		check(err)
		b := make([]byte, 65536)
		for {
			k, from, err := p.ReadFrom(b)
			check(err)
			p.WriteTo(b[:k], from)
		}
	}()
	go func() {
		l, err := net.Listen("tcp", ":"+next)
		check(err)
		for {
			c, err := l.Accept()
			check(err)
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	fmt.Println("pod: serving on", port)
	check(http.ListenAndServe(":"+port, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("pod: request from", r.RemoteAddr)
		io.WriteString(w, words(r.RemoteAddr))
	})))
}

// send sends BYTES and waits for as many to come back, COUNT times for UDP, and
// without BYTES prints the answer to one line.
func send(proto, to string, args []string) {
	size, count := 0, 1
	if len(args) > 0 {
		size, _ = strconv.Atoi(args[0])
	}
	if len(args) > 1 {
		count, _ = strconv.Atoi(args[1])
	}
	c, err := net.DialTimeout(proto, to, 5*time.Second)
	check(err)
	start := time.Now()
	c.SetDeadline(start.Add(5 * time.Minute))
	switch {
	case size == 0:
		c.SetDeadline(start.Add(5 * time.Second))
		fmt.Print(request(proto, c))
	case proto == "tcp":
		go func() {
			b := make([]byte, 65536)
			for left := size; left > 0; {
				k, err := c.Write(b[:min(left, len(b))])
				check(err)
				left -= k
			}
			c.(*net.TCPConn).CloseWrite()
		}()
		k, err := io.Copy(io.Discard, c)
		check(err)
		report(int(k), size, size, start)
	default:
		b, got := make([]byte, 65536), 0
		for range count {
			_, err := c.Write(b[:size])
			check(err)
			c.SetReadDeadline(time.Now().Add(time.Second))
			if k, err := c.Read(b); err == nil && k == size {
				got++
			}
		}
		report(got, count, count-count/100, start)
	}
}

// request is what a server says of its client.
func request(proto string, c net.Conn) string {
	if proto == "tcp" {
		fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n")
		b, err := io.ReadAll(c)
		check(err)
		return string(b[strings.LastIndex(string(b), "\r\n\r\n")+4:])
	}
	fmt.Fprintln(c, "?")
	s, err := bufio.NewReader(c).ReadString('\n')
	check(err)
	return s
}

// ask prints how long the first answer took, and the median of count, each on a
// connection or socket of its own.
func ask(proto, to string, count int) {
	times := make([]float64, count)
	for i := range times {
		start := time.Now()
		c, err := net.DialTimeout(proto, to, 5*time.Second)
		check(err)
		c.SetDeadline(start.Add(5 * time.Second))
		_, err = fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
		check(err)
		_, err = c.Read(make([]byte, 1500))
		check(err)
		times[i] = float64(time.Since(start).Microseconds()) / 1000
		c.Close()
	}
	first := times[0]
	slices.Sort(times)
	fmt.Printf("first %.2f ms, median %.2f ms\n", first, times[count/2])
}

// report says what came back, and whether that is enough: on a busy machine a
// datagram in a hundred may be lost.
func report(got, want, least int, start time.Time) {
	s := fmt.Sprintf("%d of %d in %.2f s", got, want, time.Since(start).Seconds())
	if got < least {
		fail(s)
	}
	fmt.Println(s + ": enough")
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

func fail(v any) {
	fmt.Fprintln(os.Stderr, "pod:", v)
	os.Exit(1)
}
