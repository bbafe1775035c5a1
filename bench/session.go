package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"rootlesskit/api"
)

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 5 * time.Second
)

// session is one running target: its launcher, and the agent inside.
type session struct {
	target  Target
	address string // of the host
	port    int
	dir     string // holds the state directory and the launcher's log
	cmd     *exec.Cmd
	kill    context.CancelFunc
	stdin   io.Closer // its end ends the agent, and so the launcher
	agent   *agent
	info    *api.Info
}

// openSession starts the target and waits until its command serves.
func openSession(ctx context.Context, t tools, address string, target Target) (*session, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "rootlesskit-bench-run-")
	if err != nil {
		return nil, err
	}
	s := &session{target: target, address: address, port: port, dir: dir}
	err = s.start(ctx, t)
	if err == nil && launched(target) {
		s.info, err = s.describe(ctx)
	}
	if err != nil {
		err = fmt.Errorf("%w%s", err, s.logTail())
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *session) stateDir() string  { return filepath.Join(s.dir, "state") }
func (s *session) apiSocket() string { return filepath.Join(s.stateDir(), "api.sock") }
func (s *session) logPath() string   { return filepath.Join(s.dir, "log") }
func (s *session) addr() string      { return fmt.Sprintf("%s:%d", s.address, s.port) }

func (s *session) commandLine(t tools) []string {
	if s.target.Launcher == "" {
		return s.agentLine(t, s.addr())
	}
	if s.target.podman() {
		line := []string{t.bench(), podmanArg, t.launcher(s.target.Launcher), s.address, fmt.Sprint(s.port), "1"}
		return append(line, s.agentLine(t, fmt.Sprintf("0.0.0.0:%d", s.port))...)
	}
	line := append([]string{t.launcher(s.target.Launcher)}, s.target.launcherFlags(s.stateDir(), s.address, s.port)...)
	if s.target.Engine != "" {
		return append(line, t.bench(), dockerArg, fmt.Sprint(s.port))
	}
	return append(line, s.agentLine(t, fmt.Sprintf("0.0.0.0:%d", s.port))...)
}

func (s *session) agentLine(t tools, listen string) []string {
	line := []string{t.bench(), agentArg, listen}
	if s.target.Server != "" {
		line = append(line, s.target.Server)
	}
	return line
}

func (s *session) start(ctx context.Context, t tools) error {
	log, err := os.Create(s.logPath())
	if err != nil {
		return err
	}
	defer log.Close()
	ctx, s.kill = context.WithCancel(ctx)
	line := s.commandLine(t)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is this process's to answer
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout // then it is killed
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd, s.stdin = cmd, in
	slow := time.AfterFunc(startTimeout, s.kill)
	defer slow.Stop()
	s.agent, err = newAgent(in, out)
	return err
}

// close ends the target and everything that it left behind.
func (s *session) close() {
	if s.cmd != nil {
		s.stdin.Close()
		slow := time.AfterFunc(stopTimeout, s.kill)
		_ = s.cmd.Wait() // reports the signal, where it took one
		slow.Stop()
		endOrphans()
	}
	if s.kill != nil {
		s.kill()
	}
	os.RemoveAll(s.dir)
}

func (s *session) describe(ctx context.Context) (*api.Info, error) {
	c := api.NewClient(s.apiSocket())
	defer c.Close()
	return c.Info(ctx)
}

// driver names the drivers in use, as the launcher itself reports them.
func (s *session) driver() string {
	if !launched(s.target) {
		return s.target.Launcher
	}
	network, ports := "host", "none or implicit"
	if s.info.NetworkDriver != nil {
		network = s.info.NetworkDriver.Driver
	}
	if s.info.PortDriver != nil {
		ports = s.info.PortDriver.Driver
	}
	return network + " / " + ports
}

// logTail is the end of what the launcher said.
func (s *session) logTail() string {
	log, err := os.ReadFile(s.logPath())
	if err != nil || len(log) == 0 {
		return ""
	}
	lines := strings.Split(string(bytes.TrimSpace(log)), "\n")
	return ": " + lines[len(lines)-1]
}

// loadIn runs a load in the host, through the published port.
func (s *session) loadIn(ctx context.Context, l Load) (Values, error) {
	l.Addr = s.addr()
	if l.http() {
		if err := waitHTTP(ctx, l.Addr, startTimeout); err != nil {
			return nil, err
		}
		return l.run()
	}
	if err := waitServing(ctx, l.udp(), l.Addr, startTimeout); err != nil {
		return nil, err
	}
	return l.run()
}

// loadOut runs a load in the namespace, against a server in the host.
func (s *session) loadOut(l Load) (Values, error) {
	srv, err := startServer("127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer srv.close()
	host := "127.0.0.1"
	if s.target.Launcher != "" {
		if !s.agent.hello.Gateway.IsValid() {
			return nil, errors.New("the namespace has no default route")
		}
		host = s.agent.hello.Gateway.String()
	}
	l.Addr = fmt.Sprintf("%s:%d", host, srv.tcp.Addr().(*net.TCPAddr).Port)
	return s.agent.run(l)
}

// waitServing polls until a message comes back.
func waitServing(ctx context.Context, udp bool, addr string, timeout time.Duration) error {
	network := "tcp4"
	if udp {
		network = "udp4"
	}
	var err error
	for end := time.Now().Add(timeout); time.Now().Before(end); {
		if err = echoOnce(network, addr, 500*time.Millisecond); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return fmt.Errorf("nothing answers on %s %s: %w", network, addr, err)
}

func echoOnce(network, addr string, timeout time.Duration) error {
	c, err := net.DialTimeout(network, addr, timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	return exchange(c, message(opEcho), make([]byte, messageSize))
}

// freePort finds a number that is free for TCP and UDP, below the range that
// the kernel picks the ports of outgoing connections from.
func freePort() (int, error) {
	var lastErr error
	for range 100 {
		port := 20000 + rand.IntN(10000)
		s, err := startServer(fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			s.close()
			return port, nil
		}
		lastErr = err
	}
	return 0, fmt.Errorf("finding a free port: %w", lastErr)
}
