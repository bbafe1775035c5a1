package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Web servers as they come, behind a published port. A server takes the place of
// the agent's own.

// The kinds of load on a web server.
const (
	httpConnections = "http-connections"
	httpRequests    = "http-requests"
	httpDownload    = "http-download"
)

// The files that a server has.
const (
	smallFile, smallSize = "small", 64
	bigFile, bigSize     = "big", 64 << 20
)

var webServers = []string{"go", "node", "python", "nginx", "nginx-reuseport"}

// httpFigures are for the port drivers that differ in how a server is reached,
// builtin and bypass4netns.
func httpFigures() []Figure {
	var figures []Figure
	for _, server := range webServers {
		add := func(id, title string, load Load, metrics ...Metric) {
			f := inward("http-"+server+"-"+id, "http", server+": "+title, load, metrics...)
			f.For = func(t Target) bool { return t.Launcher == "" || t.Ports == "builtin" || t.Ports == "bypass4netns" }
			inner := f.Sample
			f.Sample = func(ctx context.Context, r *runner, t Target) (Values, error) {
				t.Server = server
				return inner(ctx, r, t)
			}
			figures = append(figures, f)
		}
		latency := []Metric{rate("/s"), cost("p50", "µs"), cost("p99", "µs")}
		add("down", "one download", Load{Kind: httpDownload, Clients: 1}, rate("Gbit/s"))
		add("conns-8", "connections a second, 8 workers", Load{Kind: httpConnections, Clients: 8}, rate("/s"), loss("failed", "/s"))
		add("rr-1", "requests a second, 1 connection", Load{Kind: httpRequests, Clients: 1}, latency...)
		add("rr-8", "requests a second, 8 connections", Load{Kind: httpRequests, Clients: 8}, latency...)
	}
	return figures
}

func (l Load) http() bool { return strings.HasPrefix(l.Kind, "http-") }

func httpGet(file string, last bool) string {
	request := "GET /" + file + " HTTP/1.1\r\nHost: bench\r\n"
	if last {
		request += "Connection: close\r\n"
	}
	return request + "\r\n"
}

// readResponse reads one response and returns the size of its body.
func readResponse(r *bufio.Reader) (int64, error) {
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return n, err
}

// runHTTPConnections is runConnections with a request of HTTP.
func runHTTPConnections(l Load) (Values, error) {
	var done, failed atomic.Uint64
	took, _ := l.parallel(func(_ int, end time.Time) error {
		for time.Now().Before(end) {
			if err := l.oneRequest(); err != nil {
				failed.Add(1)
			} else {
				done.Add(1)
			}
		}
		return nil
	})
	if done.Load() == 0 {
		return nil, errors.New("every connection failed")
	}
	return Values{"rate": perSecond(done.Load(), took), "failed": perSecond(failed.Load(), took)}, nil
}

func (l Load) oneRequest() error {
	c, err := l.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, httpGet(smallFile, true)); err != nil {
		return err
	}
	b, err := io.ReadAll(c)
	if err == nil && len(b) < smallSize {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// runHTTPRequests repeats a request on open connections. The responses are alike,
// so only the first is looked at.
func runHTTPRequests(l Load) (Values, error) {
	times := make([][]time.Duration, l.Clients)
	took, err := l.parallel(func(i int, end time.Time) (err error) {
		times[i], err = l.requestsUntil(end)
		return err
	})
	if err != nil {
		return nil, err
	}
	var all []time.Duration
	for _, t := range times {
		all = append(all, t...)
	}
	return latencies(all, took), nil
}

func (l Load) requestsUntil(end time.Time) ([]time.Duration, error) {
	c, err := net.DialTimeout("tcp4", l.Addr, grace)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(end.Add(grace))
	var times []time.Duration
	request, in := []byte(httpGet(smallFile, false)), &countingReader{r: c}
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	if _, err := readResponse(bufio.NewReader(in)); err != nil {
		return nil, err
	}
	response := make([]byte, in.n)
	for start := time.Now(); start.Before(end); {
		if err := exchange(c, request, response); err != nil {
			return nil, err
		}
		now := time.Now()
		times = append(times, now.Sub(start))
		start = now
	}
	return times, nil
}

type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += n
	return n, err
}

func runHTTPDownload(l Load) (Values, error) {
	var total atomic.Uint64
	took, err := l.parallel(func(_ int, end time.Time) error {
		c, err := net.DialTimeout("tcp4", l.Addr, grace)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(end.Add(grace))
		in := bufio.NewReaderSize(c, blockSize)
		for time.Now().Before(end) {
			if _, err := io.WriteString(c, httpGet(bigFile, false)); err != nil {
				return err
			}
			n, err := readResponse(in)
			if err != nil {
				return err
			}
			total.Add(uint64(n))
		}
		return nil
	})
	return gbitRate(total.Load(), took), err
}

// runWebServer is the agent with a web server in the place of its own.
func runWebServer(listen, server string) error {
	dir, err := os.MkdirTemp("", "rootlesskit-bench-www-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, smallFile), make([]byte, smallSize), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, bigFile), make([]byte, bigSize), 0o644); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	if server == "go" {
		l, err := net.Listen("tcp4", listen)
		if err != nil {
			return err
		}
		go func() { _ = http.Serve(l, http.FileServer(http.Dir(dir))) }()
		return hold(nil)
	}
	cmd, err := webServer(server, dir, host, port)
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	return hold(cmd)
}

// hold says that the server was started and ends it with the standard input.
func hold(cmd *exec.Cmd) error {
	if err := json.NewEncoder(os.Stdout).Encode(hello{}); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	if cmd != nil {
		_ = cmd.Process.Signal(syscall.SIGTERM) // nginx ends its workers
		_ = cmd.Wait()
	}
	return nil
}

const nodeServer = `const [dir, host, port] = process.argv.slice(1), fs = require("fs")
const files = {}
for (const name of fs.readdirSync(dir)) files["/" + name] = fs.readFileSync(dir + "/" + name)
require("http").createServer((q, r) => r.end(files[q.url])).listen(port, host)`

func webServer(server, dir, host, port string) (*exec.Cmd, error) {
	switch server {
	case "node":
		return exec.Command("node", "-e", nodeServer, dir, host, port), nil
	case "python":
		return exec.Command("python3", "-c", pythonServer, dir, host, port), nil
	}
	listen := host + ":" + port
	if server == "nginx-reuseport" {
		listen += " reuseport"
	}
	conf, err := nginxConf(dir, listen)
	return exec.Command("nginx", "-p", dir, "-c", conf), err
}

const pythonServer = `import http.server, os, sys
os.chdir(sys.argv[1])
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16 # a response in one piece
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer((sys.argv[2], int(sys.argv[3])), Handler).serve_forever()`

// nginxConf has three workers.
func nginxConf(dir, listen string) (string, error) {
	conf := "daemon off; worker_processes 3; pid " + dir + "/pid; error_log stderr crit;\n"
	if os.Geteuid() == 0 {
		conf += "user root;\n"
	}
	conf += "events {}\nhttp { access_log off; sendfile on; keepalive_requests 100000000;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		conf += kind + "_temp_path " + dir + "/" + kind + ";\n"
	}
	conf += "server { listen " + listen + "; root " + dir + "; } }\n"
	file := filepath.Join(dir, "nginx.conf")
	return file, os.WriteFile(file, []byte(conf), 0o644)
}

// waitHTTP polls until a server answers.
func waitHTTP(ctx context.Context, addr string, timeout time.Duration) error {
	var err error
	for end := time.Now().Add(timeout); time.Now().Before(end); {
		if err = (Load{Addr: addr}).oneRequest(); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return fmt.Errorf("no web server answers on %s: %w", addr, err)
}
