package test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"rootlesskit/internal/nstest"
)

// fakeDockerProxy does with socat what docker-proxy does.
const fakeDockerProxy = `#!/bin/sh
if [ -n "$FAKE_FAILURE" ]; then printf '1\nfake failure' >&3; exit 1; fi
case $4 in *:*) listen=TCP6-LISTEN;; *) listen=TCP4-LISTEN;; esac
listening() { grep -q "$(printf ':%04X' "$6") 0*:0000 0A" /proc/net/tcp /proc/net/tcp6; }
( while kill -0 $$ && ! listening "$@"; do :; done; printf '0\n' >&3 ) &
exec 3>&-
exec socat "$listen:$6,bind=[$4],reuseaddr,fork" "TCP:$8:${10}"
`

// dockerProxy is a rootlesskit-docker-proxy in the namespace of a run, started
// as dockerd starts it.
type dockerProxy struct {
	*exec.Cmd
	status *os.File
	output *nstest.Buffer
}

func startDockerProxy(t *testing.T, k *kit, env []string, args ...string) *dockerProxy {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-proxy"), []byte(fakeDockerProxy), 0o755); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	p := &dockerProxy{status: r, output: &nstest.Buffer{}}
	nsenter := []string{"-U", "--preserve-credentials", "-m", "-n", "-t", k.childPID(t), bin("rootlesskit-docker-proxy")}
	p.Cmd = exec.Command("nsenter", append(nsenter, args...)...)
	p.Env = append(os.Environ(), "ROOTLESSKIT_STATE_DIR="+k.stateDir, "PATH="+dir+":"+os.Getenv("PATH"))
	p.Env = append(p.Env, env...)
	p.ExtraFiles = []*os.File{w}
	p.Stdout, p.Stderr = p.output, p.output
	p.WaitDelay = 5 * time.Second
	err = p.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.ProcessState == nil {
			_ = p.Process.Kill()
			_ = p.Wait()
		}
	})
	return p
}

// answer reads the status to its end, as dockerd does.
func (p *dockerProxy) answer(t *testing.T) string {
	t.Helper()
	if err := p.status.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(p.status)
	if err != nil {
		t.Fatalf("reading the status: %v, output %s", err, p.output)
	}
	return string(b)
}

func (p *dockerProxy) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := p.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("after %v: %v: %s", sig, err, p.output)
	}
}

// TestDockerProxy publishes a port of a "container", an address of its own in
// the namespace, through each kind of port driver.
func TestDockerProxy(t *testing.T) {
	for _, tt := range []struct {
		network, driver, hostIP, listenIP, proto string
		signal                                   syscall.Signal
	}{
		{"gvisor-tap-vsock", "builtin", "127.0.0.1", "127.0.0.1", "tcp4", syscall.SIGINT},
		{"gvisor-tap-vsock", "builtin", "::1", "::1", "tcp6", syscall.SIGTERM},
		{"gvisor-tap-vsock", "gvisor-tap-vsock", "127.0.0.1", "127.0.0.1", "tcp4", syscall.SIGINT},
		{"slirp4netns", "slirp4netns", "127.0.0.1", "10.0.2.100", "tcp4", syscall.SIGINT}, // no loopback address inside
	} {
		t.Run(tt.driver+" "+tt.hostIP, func(t *testing.T) {
			k := startKit(t, append([]string{"--net=" + tt.network, "--disable-host-loopback", "--port-driver=" + tt.driver}, webServer...)...)
			port := nstest.FreePort(t)
			addr := net.JoinHostPort(tt.hostIP, strconv.Itoa(port))
			p := startDockerProxy(t, k, nil, "-proto", "tcp", "-host-ip", tt.hostIP, "-host-port", fmt.Sprint(port),
				"-container-ip", "127.0.0.5", "-container-port", "80")
			if got := p.answer(t); got != "0\n" {
				t.Fatalf("status %q, output %s", got, p.output)
			}
			want := fmt.Sprintf(`{"id":1,"spec":{"proto":%q,"parentIP":%q,"parentPort":%d,"childPort":%d,"childIP":%q}}`+"\n",
				tt.proto, tt.hostIP, port, port, tt.listenIP)
			if got := k.mustCtl(t, "list-ports", "--json"); got != want {
				t.Errorf("published %swant %s", got, want)
			}
			if body := get(t, "http://"+addr+"/passwd"); !strings.Contains(body, "root:") {
				t.Errorf("body %q", body)
			}
			p.stop(t, tt.signal)
			if got := k.mustCtl(t, "list-ports", "--json"); got != "" {
				t.Errorf("left published: %s", got)
			}
			poll(t, "the end of docker-proxy", func() bool { return len(processesWith(fmt.Sprintf("-LISTEN:%d,", port))) == 0 })
		})
	}
}

// TestDockerProxyRefusals: dockerd shows what follows "1\n" to its user.
func TestDockerProxyRefusals(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	free := fmt.Sprint(nstest.FreePort(t))
	builtin := startKit(t, "--net=none", "--port-driver=builtin", "sleep", "infinity")
	unpublished := startKit(t, "--net=none", "sleep", "infinity")
	for _, tt := range []struct {
		name   string
		kit    *kit
		env    []string
		args   []string
		status string
		code   int
	}{
		{"port taken", builtin, nil, []string{"-host-ip", "127.0.0.1", "-host-port", taken},
			"1\nerror while calling PortManager.AddPort(): listen tcp4 127.0.0.1:" + taken + ": bind: address already in use", 1},
		{"no docker-proxy", builtin, []string{"PATH=/nosuch"}, []string{"-host-ip", "127.0.0.1", "-host-port", free},
			"1\nerror while starting docker-proxy: exec: \"docker-proxy\": executable file not found in $PATH", 1},
		{"docker-proxy fails", builtin, []string{"FAKE_FAILURE=1"}, []string{"-host-ip", "127.0.0.1", "-host-port", free}, "1\nfake failure", 1},
		{"protocol without support", builtin, nil, []string{"-proto", "sctp", "-host-ip", "127.0.0.1", "-host-port", free}, "0\n", 0},
		{"not an address", builtin, nil, []string{"-host-ip", "x", "-host-port", free},
			"1\n-host-ip=x is not an IP address: ParseAddr(\"x\"): unable to parse IP", 1},
		{"no API", builtin, []string{"ROOTLESSKIT_STATE_DIR="}, nil, "1\n$ROOTLESSKIT_STATE_DIR is not set: dockerd must run inside rootlesskit", 1},
		{"bad usage", builtin, nil, []string{"-x"}, "1\nflag provided but not defined: -x", 1},
		{"no port driver", unpublished, []string{"FAKE_FAILURE=1"}, []string{"-host-ip", "127.0.0.1", "-use-listen-fd"}, "1\nfake failure", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := startDockerProxy(t, tt.kit, tt.env, tt.args...)
			if got := p.answer(t); got != tt.status {
				t.Errorf("status %q, want %q; output %s", got, tt.status, p.output)
			}
			_ = p.Wait()
			if code := p.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("code %d, want %d; output %s", code, tt.code, p.output)
			}
		})
	}
	if got := builtin.mustCtl(t, "list-ports", "--json"); got != "" {
		t.Errorf("left published: %s", got)
	}
}
