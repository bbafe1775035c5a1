package test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"rootlesskit/internal/nstest"
)

// serveText answers each request with a text, until the test ends.
func serveText(t *testing.T, l net.Listener, text string) {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
}

// get fetches a page, trying again while the server inside starts.
func get(t *testing.T, url string) string {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var body string
	poll(t, url, func() bool {
		resp, err := client.Get(url)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		body = string(b)
		return err == nil && resp.StatusCode == http.StatusOK
	})
	return body
}

// webServer is a command that serves /etc on port 80.
var webServer = []string{"busybox", "httpd", "-f", "-p", "80", "-h", "/etc"}

// TestPublishAtStart: the shortest useful run.
func TestPublishAtStart(t *testing.T) {
	for _, flags := range [][]string{
		{"--net=none", "--port-driver=builtin"},
		{"--net=gvisor-tap-vsock", "--port-driver=builtin", "--disable-host-loopback"},
		{"--net=gvisor-tap-vsock", "--port-driver=gvisor-tap-vsock", "--disable-host-loopback"},
	} {
		port := nstest.FreePort(t)
		spec := fmt.Sprintf("127.0.0.1:%d:80/tcp", port)
		startKit(t, append(append(flags, "-p", spec), webServer...)...)
		if body := get(t, fmt.Sprintf("http://127.0.0.1:%d/passwd", port)); !strings.Contains(body, "root:") {
			t.Errorf("%v: body %q", flags, body)
		}
	}
}

// TestDocumentedSession is the session of the documentation, word for word.
func TestDocumentedSession(t *testing.T) {
	port := nstest.FreePort(t)
	k := startKit(t, append([]string{"--net=gvisor-tap-vsock", "--disable-host-loopback", "--copy-up=/etc", "--port-driver=builtin"}, webServer...)...)
	if got := k.mustCtl(t, "add-ports", fmt.Sprintf("0.0.0.0:%d:80/tcp", port)); got != "1\n" {
		t.Errorf("add-ports printed %q", got)
	}
	get(t, fmt.Sprintf("http://127.0.0.1:%d/passwd", port))
	want := "ID    PROTO    PARENTIP    PARENTPORT    CHILDIP    CHILDPORT    \n" +
		fmt.Sprintf("1     tcp      0.0.0.0     %-13d %-10s 80           \n", port, "")
	if got := k.mustCtl(t, "list-ports"); got != want {
		t.Errorf("list-ports printed\n%swant\n%s", got, want)
	}
	if got := k.mustCtl(t, "remove-ports", "1"); got != "1\n" {
		t.Errorf("remove-ports printed %q", got)
	}
	if _, err := net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), time.Second); err == nil {
		t.Error("the removed port still accepts connections")
	}
	if got := k.mustCtl(t, "list-ports", "--json"); got != "" {
		t.Errorf("a port is left: %q", got)
	}
}

// TestPortIsTaken: the text reaches users of clients unchanged.
func TestPortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	k := startKit(t, "--net=none", "--port-driver=builtin", "sleep", "infinity")
	r := k.ctl(t, "add-ports", fmt.Sprintf("127.0.0.1:%d:80/tcp4", l.Addr().(*net.TCPAddr).Port))
	if want := fmt.Sprintf("listen tcp4 %s: bind: address already in use", l.Addr()); r.code != 1 || !strings.Contains(r.stderr, want) {
		t.Errorf("code %d, %q, want %q", r.code, r.stderr, want)
	}
}

// TestHostLoopback: the host's 127.0.0.1 can be reached from inside by the
// gateway's address, unless that is prohibited.
func TestHostLoopback(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	serveText(t, l, "secret")
	url := fmt.Sprintf("http://10.0.2.1:%d/", l.Addr().(*net.TCPAddr).Port)
	for _, tt := range []struct {
		flags []string
		want  string
	}{{nil, "secret"}, {[]string{"--disable-host-loopback"}, ""}} {
		args, patience := append([]string{"--net=gvisor-tap-vsock"}, tt.flags...), "60" // seconds
		if tt.want == "" {
			patience = "5"
		}
		r := runCmd(t, exec.CommandContext(t.Context(), bin("rootlesskit"), append(args, "curl", "-s", "-m", patience, url)...))
		if r.stdout != tt.want {
			t.Errorf("%v: %q, stderr %q", tt.flags, r.stdout, r.stderr)
		}
	}
}
