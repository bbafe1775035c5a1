package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/nstest"
)

// helperPairs are the drivers backed by helper programs, and their flags.
var helperPairs = []struct {
	net, ports string
	program    string // what the name of its process begins with: pasta is also passt
}{
	{"slirp4netns", "slirp4netns", "slirp4netns"},
	{"slirp4netns", "builtin", "slirp4netns"},
	{"pasta", "pesto", "pas"},
}

// helpersOf lists the processes that a run has started beside its child.
func helpersOf(k *kit, program string) (pids []int) {
	for _, pid := range nstest.Children(k.Process.Pid) {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		isZombie := commandLine(pid) == "" // what a killed helper has left
		if strings.HasPrefix(string(comm), program) && !isZombie {
			pids = append(pids, pid)
		}
	}
	return pids
}

func theHelper(t *testing.T, k *kit, program string) int {
	t.Helper()
	pids := helpersOf(k, program)
	if len(pids) != 1 {
		t.Fatalf("%d processes of %s: %s", len(pids), program, k.output)
	}
	return pids[0]
}

// TestHelperSession is the documented session on each pair.
func TestHelperSession(t *testing.T) {
	for _, pair := range helperPairs {
		for _, detached := range []bool{false, true} {
			t.Run(fmt.Sprint(pair.net, "-", pair.ports, "-", detached), func(t *testing.T) {
				t.Parallel()
				args := []string{
					"--net=" + pair.net, "--port-driver=" + pair.ports, "--disable-host-loopback",
					"--copy-up=/etc", "--copy-up=/run", "--slirp4netns-sandbox=auto", "--slirp4netns-seccomp=auto",
				}
				command := webServer
				if detached {
					args = append(args, "--detach-netns")
					command = append([]string{"sh", "-c", `exec nsenter --net=$ROOTLESSKIT_STATE_DIR/netns "$@"`, "-"}, command...)
				}
				k := startKit(t, append(args, command...)...)
				port := nstest.FreePort(t)
				if got := k.mustCtl(t, "add-ports", fmt.Sprintf("0.0.0.0:%d:80/tcp", port)); got != "1\n" {
					t.Errorf("add-ports printed %q", got)
				}
				get(t, fmt.Sprintf("http://127.0.0.1:%d/passwd", port))
				if got := k.mustCtl(t, "list-ports", "--json"); strings.Count(got, "\n") != 1 {
					t.Errorf("list-ports printed %q", got)
				}
				if got := k.mustCtl(t, "remove-ports", "1"); got != "1\n" {
					t.Errorf("remove-ports printed %q", got)
				}
				if _, err := net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), time.Minute); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("dialing the removed port: %v", err)
				}
			})
		}
	}
}

func TestImplicitPorts(t *testing.T) {
	address := freeAddress(t)
	k := startKit(t, "--net=pasta", "--port-driver=implicit", "--disable-host-loopback", "--copy-up=/etc",
		"busybox", "httpd", "-f", "-p", address, "-h", "/etc")
	get(t, "http://"+address+"/passwd")
	var info map[string]any
	if err := json.Unmarshal([]byte(k.mustCtl(t, "info", "--json")), &info); err != nil {
		t.Fatal(err)
	}
	if info["portDriver"] != nil {
		t.Errorf("the implicit port driver is shown: %v", info)
	}
	if r := k.ctl(t, "list-ports"); r.code != 1 || !strings.Contains(r.stderr, "no PortDriver is available") {
		t.Errorf("list-ports: code %d, %s", r.code, r.stderr)
	}
}

// TestHelperOutbound: TCP and UDP to the host by the gateway, spliced or
// translated, unless the host's loopback is out of bounds.
func TestHelperOutbound(t *testing.T) {
	port := nstest.FreePort(t) // pasta does not splice to ports of the ephemeral range
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	serveText(t, l, "tcp ")
	udp := echoDatagrams(t, "127.0.0.1")
	script := fmt.Sprintf(`curl -sS -m $2 http://10.0.2.2:%[1]d/
if [ $1 = pasta ]; then curl -sS -m 4 --retry $2 --retry-delay 1 --retry-connrefused http://localhost:%[1]d/; else printf 'tcp '; fi
exec 3<>/dev/udp/10.0.2.2/%[2]d; for i in $(seq $2); do printf udp >&3; got=$(timeout 1 head -c 3 <&3); [ "$got" ] && break; done; printf %%s "$got"`, port, udp)
	for _, network := range []string{"slirp4netns", "pasta"} {
		for flag, want := range map[string]string{"--disable-host-loopback=false": "tcp tcp udp", "--disable-host-loopback": ""} {
			splices, patience := network, "60" // seconds
			if want == "" {
				splices, patience = "pasta", "2" // look at localhost anyway
			}
			r := runKit(t, "--net="+network, flag, "--copy-up=/etc", "bash", "-c", script, "-", splices, patience)
			if r.stdout != want {
				t.Errorf("%s %s: %q, stderr %q", network, flag, r.stdout, r.stderr)
			}
		}
	}
}

func echoDatagrams(t *testing.T, ip string) (port int) {
	t.Helper()
	pc, err := net.ListenPacket("udp4", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(buf[:n], from)
		}
	}()
	return pc.LocalAddr().(*net.UDPAddr).Port
}

// fourTries matches what ss(8) shows of a connect that was tried four times, or more.
var fourTries = regexp.MustCompile(`timer:\(on,[^,]*,[4-9]\)`)

// TestHelperSilent: a helper that gets no CPU for some seconds delays the first
// connections, and fails none.
func TestHelperSilent(t *testing.T) {
	for network, program := range map[string]string{"slirp4netns": "slirp4netns", "pasta": "pas"} {
		for gateway, loopback := range map[string]string{"10.0.2.2": "127.0.0.1:0", "[fd00::2]": "[::1]:0"} {
			t.Run(network+" "+gateway, func(t *testing.T) {
				t.Parallel()
				l, err := net.Listen("tcp", loopback)
				if err != nil {
					t.Fatal(err)
				}
				serveText(t, l, "here")
				_, port, _ := net.SplitHostPort(l.Addr().String())
				k := startKit(t, "--net="+network, "--ipv6", "--port-driver=none", "sleep", "infinity")
				resume := stop(t, theHelper(t, k, program))
				got := make(chan string, 1)
				go func() {
					out, err := k.nsenter(t, "curl -sS -m 120 http://"+gateway+":"+port+" 2>&1", "-n", "-t", k.childPID(t)).Output()
					got <- fmt.Sprint(string(out), " ", err)
				}()
				poll(t, "the fourth try to connect", func() bool {
					select {
					case answer := <-got:
						t.Fatalf("while the helper was stopped, curl ended with %q", answer)
					default:
					}
					return fourTries.MatchString(k.inside(t, "", "ss -Htno state syn-sent"))
				})
				resume()
				if answer := <-got; answer != "here <nil>" {
					t.Errorf("got %q", answer)
				}
			})
		}
	}
}

// TestHelperKilled kills the helper under load, twice.
func TestHelperKilled(t *testing.T) {
	for _, pair := range helperPairs {
		t.Run(pair.net+"-"+pair.ports, func(t *testing.T) {
			port := nstest.FreePort(t)
			k := startKit(t, append([]string{
				"--net=" + pair.net, "--port-driver=" + pair.ports, "--copy-up=/etc", "--disable-host-loopback",
				"-p", fmt.Sprintf("127.0.0.1:%d:80/tcp", port),
			}, webServer...)...)
			url := fmt.Sprintf("http://127.0.0.1:%d/passwd", port)
			get(t, url)
			listed, interfaces := k.mustCtl(t, "list-ports"), interfacesOf(t, k)
			stop := httpLoad(url)
			defer stop()
			for range 2 {
				killed := theHelper(t, k, pair.program)
				if err := unix.Kill(killed, unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				poll(t, "another helper", func() bool {
					pids := helpersOf(k, pair.program)
					return len(pids) == 1 && pids[0] != killed
				})
				get(t, url)
				t.Logf("traffic resumed after %v", time.Since(start))
			}
			if now := k.mustCtl(t, "list-ports"); now != listed {
				t.Errorf("list-ports: %q, was %q", now, listed)
			}
			// A driver of its own for ports works before the helper has taken the link.
			poll(t, "the interfaces of before: "+interfaces, func() bool { return interfacesOf(t, k) == interfaces })
			if stop() == 0 {
				t.Error("there was no load")
			}
		})
	}
}

// httpLoad fetches a page without a pause; stop returns how often it came.
func httpLoad(url string) (stop func() int64) {
	var fetched atomic.Int64
	var wg sync.WaitGroup
	ended := make(chan struct{})
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-ended:
					return
				case <-time.After(time.Millisecond):
				}
				if resp, err := client.Get(url); err == nil {
					resp.Body.Close()
					fetched.Add(1)
				}
			}
		})
	}
	var once sync.Once
	return func() int64 {
		once.Do(func() { close(ended) })
		wg.Wait()
		return fetched.Load()
	}
}

// interfacesOf shows addresses and routes inside.
func interfacesOf(t *testing.T, k *kit) string {
	t.Helper()
	return k.inside(t, "", "ip -4 -o addr; ip -4 route")
}

// TestHelperEndsWithTheRun: however the launcher ends, nothing stays.
func TestHelperEndsWithTheRun(t *testing.T) {
	for _, pair := range helperPairs {
		for _, detach := range []string{"--detach-netns=false", "--detach-netns"} {
			for _, sig := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
				k := startKit(t, "--net="+pair.net, "--port-driver="+pair.ports, detach, "--slirp4netns-sandbox=auto", "--slirp4netns-seccomp=auto", "sleep", "infinity")
				helper := theHelper(t, k, pair.program)
				if err := unix.Kill(k.Process.Pid, sig); err != nil {
					t.Fatal(err)
				}
				poll(t, fmt.Sprintf("the end of %s after %v", pair.program, sig), func() bool {
					status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", helper))
					return err != nil || strings.Contains(string(status), "State:\tZ")
				})
			}
		}
	}
}

// TestHelperCannotBeRestarted: a helper that does not come back ends the run.
func TestHelperCannotBeRestarted(t *testing.T) {
	dir := t.TempDir()
	wrapper := filepath.Join(dir, "slirp4netns")
	script := "#!/bin/sh\n[ -e " + dir + "/broken ] && { echo it is broken >&2; exit 7; }\nexec slirp4netns \"$@\"\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	k := startKit(t, "--net=slirp4netns", "--slirp4netns-binary="+wrapper, "sleep", "infinity")
	if err := os.WriteFile(filepath.Join(dir, "broken"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(theHelper(t, k, "slirp4netns"), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	poll(t, "the reason", func() bool {
		return strings.Contains(k.output.String(), "error: the network driver slirp4netns has ended: slirp4netns died 7 times in a row: starting slirp4netns: exit status 7: it is broken")
	})
}

// TestHelperBadInput holds refusals to their exact text, found before anything
// is touched.
func TestHelperBadInput(t *testing.T) {
	for _, tt := range []struct {
		flags string
		want  string
	}{
		{"--net=slirp4netns --slirp4netns-sandbox=x", `unsupported slirp4netns-sandbox mode: "x"`},
		{"--net=slirp4netns --slirp4netns-seccomp=x", `unsupported slirp4netns-seccomp mode: "x"`},
		{"--net=slirp4netns --slirp4netns-sandbox=true --detach-netns", `--slirp4netns-sandbox conflicts with --detach-netns (https://github.com/rootless-containers/slirp4netns/issues/317)`},
		{"--net=slirp4netns --slirp4netns-binary=nosuch", `exec: "nosuch": executable file not found in $PATH`},
		{"--net=slirp4netns --slirp4netns-binary=/nosuch", `exec: "/nosuch": stat /nosuch: no such file or directory`},
		{"--net=pasta --pasta-binary=nosuch", `exec: "nosuch": executable file not found in $PATH`},
		{"--net=pasta --port-driver=pesto --pesto-binary=nosuch", `exec: "nosuch": executable file not found in $PATH`},
		{"--net=pasta --port-driver=slirp4netns", `network "pasta" requires port driver "none" or "implicit" or "pesto"`},
		{"--net=slirp4netns --port-driver=pesto", `port driver "pesto" requires --net=pasta`},
	} {
		tmp := t.TempDir()
		cmd := exec.CommandContext(t.Context(), bin("rootlesskit"), append(strings.Fields(tt.flags), "true")...)
		cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
		r := runCmd(t, cmd)
		if last := lastLine(r.stderr); last != "[rootlesskit:parent] error: "+tt.want || r.code != 1 {
			t.Errorf("%s: code %d, %q", tt.flags, r.code, last)
		}
		if left, _ := os.ReadDir(tmp); len(left) > 0 {
			t.Errorf("%s: left in the temporary directory: %v", tt.flags, left)
		}
	}
	for _, flags := range []string{"--net=none --slirp4netns-sandbox=x", "--net=pasta --slirp4netns-sandbox=x --slirp4netns-binary=nosuch"} {
		if r := runKit(t, append(strings.Fields(flags), "true")...); r.code != 0 {
			t.Errorf("%s: irrelevant flags are not accepted: %s", flags, r.stderr)
		}
	}
}

// TestHelperLongStateDir: wherever api.sock fits, the socket of a helper does:
// sun_path has room for 107 bytes (unix(7)).
func TestHelperLongStateDir(t *testing.T) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	const longest = 107 - len("/api.sock")
	for _, pair := range helperPairs {
		k := newKit(t, "--net="+pair.net, "--port-driver="+pair.ports, "--copy-up=/etc", "--disable-host-loopback",
			"-p", fmt.Sprintf("0.0.0.0:%d:80/tcp", nstest.FreePort(t)), "sleep", "infinity")
		old := k.stateDir
		k.stateDir = filepath.Join(dir, strings.Repeat("x", longest-len(dir)-1))
		k.Args[1] = strings.Replace(k.Args[1], old, k.stateDir, 1)
		k.start(t)
		k.awaitAPI(t)
		k.terminate(t)
		k.await(t)
	}
}
