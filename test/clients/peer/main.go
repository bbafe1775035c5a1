// Command peer is both ends of the rig's connections: the server in the
// containers' image, and its clients.
//
//	peer serve ADDR...   answers HTTP and UDP on each address: "NAME CLIENT"
//	peer udp ADDR [PORT] asks over UDP, from a port, until it is answered, and
//	                     prints that
//	peer watch ADDR      asks over HTTP all the time, each time on a connection of
//	                     its own, and prints lines "BEGIN [ANSWER] END", the times
//	                     in seconds
//
// NAME is the environment's, so that an answer says which container it is from.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	err := fmt.Errorf("usage: peer serve ADDR... | peer udp ADDR [PORT] | peer watch ADDR")
	switch {
	case len(os.Args) > 2 && os.Args[1] == "serve":
		err = serve(os.Args[2:])
	case len(os.Args) == 3 && os.Args[1] == "watch":
		err = watch("http://" + os.Args[2] + "/")
	case len(os.Args) == 3 && os.Args[1] == "udp":
		err = ask(os.Args[2], "0")
	case len(os.Args) == 4 && os.Args[1] == "udp":
		err = ask(os.Args[2], os.Args[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(addrs []string) error {
	name := os.Getenv("NAME")
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s\n", name, r.RemoteAddr)
	})
	failed := make(chan error)
	for _, addr := range addrs {
		go func() { failed <- http.ListenAndServe(addr, handler) }()
		go func() { failed <- serveUDP(name, addr) }()
	}
	return <-failed
}

func serveUDP(name, addr string) error {
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	buf := make([]byte, 1500)
	for {
		_, client, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(fmt.Appendf(nil, "%s %s\n", name, client), client); err != nil {
			return err
		}
	}
}

// ask repeats its question, because a datagram may be lost.
func ask(addr, port string) error {
	from, err := net.ResolveUDPAddr("udp", ":"+port)
	if err != nil {
		return err
	}
	dialer := net.Dialer{LocalAddr: from}
	conn, err := dialer.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	buf := make([]byte, 1500)
	for range 10 {
		if _, err = conn.Write([]byte("?")); err == nil {
			_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			var n int
			if n, err = conn.Read(buf); err == nil {
				_, err = os.Stdout.Write(buf[:n])
				return err
			}
		}
		time.Sleep(50 * time.Millisecond) // a refusal comes at once
	}
	return err
}

const watchPause = 20 * time.Millisecond

// watch asks until its process is ended.
func watch(url string) error {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		begin := time.Now()
		answer := ""
		if r, err := client.Get(url); err == nil {
			if body, err := io.ReadAll(r.Body); err == nil && r.StatusCode == http.StatusOK {
				answer = strings.TrimSpace(string(body)) + " "
			}
			r.Body.Close()
		}
		if _, err := fmt.Printf("%s %s%s\n", seconds(begin), answer, seconds(time.Now())); err != nil {
			return err
		}
		time.Sleep(watchPause)
	}
}

func seconds(t time.Time) string { return fmt.Sprintf("%.6f", float64(t.UnixMicro())/1e6) }
