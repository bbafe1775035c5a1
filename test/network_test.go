package test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/nstest"
)

// networkRuns are the networks on which programs are tried, with the address
// of the host's loopback.
var networkRuns = []struct {
	name, host string
	flags      []string
	mebibytes  int // of each transfer
}{
	{"gvisor", "10.0.2.1", []string{"--net=gvisor-tap-vsock"}, 1024},
	{"gvisor at 1500 on another network", "10.9.8.1", []string{"--net=gvisor-tap-vsock", "--mtu=1500", "--cidr=10.9.8.0/24", "--ipv6"}, 256},
	{"slirp4netns", "10.0.2.2", []string{"--net=slirp4netns"}, 128},
	{"pasta", "10.0.2.2", []string{"--net=pasta"}, 128},
}

// TestProgramsInside has programs use each network: transfers of which the
// checksum is compared, a clone, 100 TLS streams at a time, UDP.
func TestProgramsInside(t *testing.T) {
	t.Parallel()
	repository := makeRepository(t)
	ping, pong := "", ""
	if mayPing(t) {
		ping, pong = `ping -q -c 2 -i 0.2 -W 60 $host >ping.txt && echo ping: ok`, "ping: ok\n"
	}
	for _, n := range networkRuns {
		t.Run(n.name, func(t *testing.T) {
			s := newHostServer(t, n.mebibytes, repository)
			iperf := startIperf(t)
			script := fmt.Sprintf(`set -eu
host=%s plain=%d tls=%d iperf=%d
cd "$(mktemp -d)"
echo down: $(curl -sS --fail http://$host:$plain/bytes | sha256sum)
curl -sS --fail http://$host:$plain/bytes | curl -sS --fail -T - http://$host:$plain/sum
git clone -q http://$host:$plain/repository.git clone && cat clone/file
curl -sSkZ --fail --http1.1 --parallel-immediate --parallel-max 100 -o '#1' "https://$host:$tls/echo/[1-100]"
echo tls: $(cat $(seq 100) | wc -l)
iperf3 -c $host -p $iperf -u -b 20M -l 1200 -t 1 --get-server-output >iperf.txt || cat iperf.txt
grep -q 'receiver' iperf.txt && echo udp: ok
%s
rm -r "$PWD"
`, n.host, s.port(s.plain), s.port(s.tls), iperf, ping)
			r := runKit(t, append(n.flags, "--copy-up=/etc", "bash", "-c", script)...)
			want := fmt.Sprintf("down: %[1]s -\nup: %[1]s\nfrom a repository\ntls: 100\nudp: ok\n", s.sum) + pong
			if r.code != 0 || r.stdout != want {
				t.Errorf("code %d, got\n%s\nwant\n%s\nstderr: %s", r.code, r.stdout, want, r.stderr)
			}
		})
	}
}

// TestProgramsPublished: the same through a published port of a server inside.
func TestProgramsPublished(t *testing.T) {
	const mebibytes = 256
	dir := t.TempDir()
	sum := sha256.New()
	if err := writeBytes(io.MultiWriter(create(t, filepath.Join(dir, "bytes")), sum), mebibytes); err != nil {
		t.Fatal(err)
	}
	want := hex.EncodeToString(sum.Sum(nil))
	for _, driver := range []string{"gvisor-tap-vsock", "builtin"} {
		for _, detach := range []bool{false, true} {
			command := []string{"busybox", "httpd", "-f", "-p", "80", "-h", dir}
			flags := []string{"--net=gvisor-tap-vsock", "--port-driver=" + driver}
			if detach {
				flags = append(flags, "--detach-netns")
				command = append([]string{"sh", "-c", `exec nsenter --net=$ROOTLESSKIT_STATE_DIR/netns "$@"`, "-"}, command...)
			}
			port := nstest.FreePort(t)
			k := startKit(t, append(append(flags, "-p", fmt.Sprintf("127.0.0.1:%d:80/tcp", port)), command...)...)
			var got hash.Hash
			poll(t, "a server", func() bool {
				got = sha256.New()
				resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/bytes", port))
				if err != nil {
					return false
				}
				defer resp.Body.Close()
				_, err = io.Copy(got, resp.Body)
				return err == nil
			})
			if s := hex.EncodeToString(got.Sum(nil)); s != want {
				t.Errorf("%s, detached %v: another checksum: %s, want %s", driver, detach, s, want)
			}
			k.terminate(t)
			k.await(t)
		}
	}
}

// TestDig asks the embedded network's name server for answers that do not fit
// into the datagrams of old, by UDP and TCP. The host is a run of its own, whose
// name server listens on port 53.
func TestDig(t *testing.T) {
	script := fmt.Sprintf(`set -eu
python3 -I %s &
dir=$(mktemp -d)
echo nameserver 127.0.0.1 >$dir/resolv.conf
mount --bind $dir/resolv.conf /etc/resolv.conf
until dig +tries=1 +timeout=1 +short TXT 1.test @127.0.0.1 | grep -q x; do sleep 0.05; done
%s --state-dir=$dir/state --net=gvisor-tap-vsock bash -c '
for how in +notcp +tcp; do
	for server in 10.0.2.1 10.0.2.3; do
		for pieces in 1 4 8 40; do
			echo $how $pieces $(dig $how +bufsize=4096 +tries=2 +short TXT $pieces.test @$server | tr -cd x | wc -c)
		done
	done
done'
kill $!
`, testdata(t, "nameserver.py"), bin("rootlesskit"))
	r := runKit(t, "--net=none", "--pidns", "--copy-up=/etc", "bash", "-c", script)
	var want strings.Builder
	for _, how := range []string{"+notcp", "+tcp"} {
		for range 2 {
			for _, pieces := range []int{1, 4, 8, 40} {
				fmt.Fprintln(&want, how, pieces, pieces*200)
			}
		}
	}
	if r.stdout != want.String() {
		t.Errorf("got\n%s\nwant\n%s\nstderr: %s", r.stdout, want.String(), r.stderr)
	}
}

// hostServer is what programs inside talk to.
type hostServer struct {
	mebibytes  int
	sum        string // of that many
	plain, tls *httptest.Server
}

func newHostServer(t *testing.T, mebibytes int, repository string) *hostServer {
	s := &hostServer{mebibytes: mebibytes}
	h := sha256.New()
	if err := writeBytes(h, mebibytes); err != nil {
		t.Fatal(err)
	}
	s.sum = hex.EncodeToString(h.Sum(nil))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /bytes", func(w http.ResponseWriter, _ *http.Request) { _ = writeBytes(w, mebibytes) })
	mux.HandleFunc("PUT /sum", func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		_, _ = io.Copy(h, r.Body)
		fmt.Fprintf(w, "up: %x\n", h.Sum(nil))
	})
	mux.Handle("GET /repository.git/", http.StripPrefix("/repository.git/", http.FileServer(http.Dir(repository))))
	s.plain = serveAt(t, mux, (*httptest.Server).Start)
	s.tls = serveAt(t, together(100), (*httptest.Server).StartTLS)
	return s
}

// serveAt listens below the range of ephemeral ports, to which pasta does not
// splice.
func serveAt(t *testing.T, h http.Handler, start func(*httptest.Server)) *httptest.Server {
	l, err := net.Listen("tcp4", freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	start(s)
	t.Cleanup(s.Close)
	return s
}

// together answers when n requests are under way, which so have a connection
// each.
func together(n int) http.Handler {
	var arrived sync.WaitGroup
	arrived.Add(n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived.Done()
		arrived.Wait()
		fmt.Fprintln(w, r.URL.Path)
	})
}

func (s *hostServer) port(of *httptest.Server) int { return of.Listener.Addr().(*net.TCPAddr).Port }

// writeBytes writes that many mebibytes, no two of which are the same.
func writeBytes(w io.Writer, mebibytes int) error {
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for i := range mebibytes {
		copy(block, fmt.Sprintf("%16d", i))
		if _, err := w.Write(block); err != nil {
			return err
		}
	}
	return nil
}

func create(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// makeRepository makes one that git can clone from a plain file server.
func makeRepository(t *testing.T) (bare string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", `
git init -q work && cd work
echo from a repository >file
git add file
git -c user.name=test -c user.email=test@localhost commit -qm first
git clone -q --bare . ../bare && cd ../bare && git update-server-info`)
	cmd.Dir = dir
	if r := runCmd(t, cmd); r.code != 0 {
		t.Fatalf("making a repository: %s", r.stderr)
	}
	return filepath.Join(dir, "bare")
}

// mayPing reports whether this user may send echo requests (icmp(7)).
func mayPing(t *testing.T) bool {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		t.Log("net.ipv4.ping_group_range leaves this user out: no ping")
		return false
	}
	unix.Close(fd)
	return true
}

// startIperf starts a server for one client.
func startIperf(t *testing.T) (port int) {
	t.Helper()
	port = nstest.FreePort(t)
	var out nstest.Buffer
	cmd := exec.CommandContext(t.Context(), "iperf3", "-s", "-1", "-B", "127.0.0.1", "-p", fmt.Sprint(port), "--forceflush")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	poll(t, "iperf3", func() bool { return strings.Contains(out.String(), "listening") })
	return port
}
