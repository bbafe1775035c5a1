package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"rootlesskit/api"
	"rootlesskit/internal/nstest"
)

// bundle makes an OCI bundle whose process is a web server, with the seccomp
// profile that is shipped.
func bundle(t *testing.T, network bool, listener, ports string) string {
	t.Helper()
	dir := t.TempDir()
	profile, err := os.ReadFile("../contrib/seccomp/bypass4netns.json")
	if err != nil {
		t.Fatal(err)
	}
	profile = bytes.ReplaceAll(profile, []byte("@STATE_DIR@/bypass4netns.sock"), []byte(listener))
	profile = bytes.ReplaceAll(profile, []byte("@PORTS@"), []byte(ports))
	namespaces := []map[string]string{{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}}
	if network {
		namespaces = append(namespaces, map[string]string{"type": "network"})
	}
	caps := []string{"CAP_NET_BIND_SERVICE"}
	config := map[string]any{
		"ociVersion": "1.0.2",
		"process": map[string]any{
			"user": map[string]int{"uid": 0, "gid": 0}, "args": []string{"/tool", "serve", ":80"}, "cwd": "/",
			"capabilities": map[string]any{"bounding": caps, "effective": caps, "permitted": caps},
		},
		"root":   map[string]string{"path": "rootfs"},
		"mounts": []map[string]string{{"destination": "/proc", "type": "proc", "source": "proc"}},
		"linux":  map[string]any{"namespaces": namespaces, "seccomp": json.RawMessage(profile)},
	}
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	tool, err := os.ReadFile(bin("tool"))
	for _, step := range []error{
		err,
		os.MkdirAll(filepath.Join(dir, "rootfs/proc"), 0o755),
		os.WriteFile(filepath.Join(dir, "rootfs/tool"), tool, 0o755),
		os.WriteFile(filepath.Join(dir, "config.json"), b, 0o644),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	return dir
}

// runc runs a bundle once the launcher is there, and waits until it answers.
func (w *world) runc(t *testing.T, at netip.AddrPort, k *kit, dir string) {
	t.Helper()
	command := fmt.Sprintf("exec runc --root %s run -b %s %s", filepath.Join(dir, "run"), dir, filepath.Base(dir))
	k.Args = append(k.Args, "sh", "-c", command)
	w.launch(t, k)
	w.awaitAnswer(t, at)
}

// TestBypassRuncContainer has a container with ports of its own, in a network
// namespace of its own.
func TestBypassRuncContainer(t *testing.T) {
	w := newWorld(t)
	k := newKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "--detach-netns", "--pidns")
	dir := bundle(t, true, filepath.Join(k.stateDir, "bypass4netns.sock"), ":8080:80/tcp")
	w.runc(t, at4, k, dir)
	for _, at := range []netip.AddrPort{at4, at6} {
		if _, err := w.get(t, at, 0); err != nil {
			t.Error(err)
		}
	}
}

// TestBypassRuncWithoutPorts has a container whose ports are malformed, or taken:
// it binds all the same, for itself.
func TestBypassRuncWithoutPorts(t *testing.T) {
	taken := fmt.Sprintf("127.0.0.1:%d:80/tcp", nstest.FreePort(t))
	for ports, why := range map[string]string{"127.0.0.1:8080:80": "missing proto", taken: "conflict with ID 1"} {
		k := newKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "--detach-netns", "-p", taken)
		dir := bundle(t, true, filepath.Join(k.stateDir, "bypass4netns.sock"), ports)
		k.Args = append(k.Args, "runc", "--root", filepath.Join(dir, "run"), "run", "-b", dir, filepath.Base(dir))
		k.start(t)
		k.awaitAPI(t)
		poll(t, "the reason", func() bool { return strings.Contains(k.output.String(), why) })
		poll(t, "the server", func() bool {
			sockets, _ := filepath.Glob("/proc/" + k.childPID(t) + "/root/proc/[0-9]*/exe")
			for _, exe := range sockets {
				if target, _ := os.Readlink(exe); target == "/tool" {
					listening, _ := os.ReadFile(filepath.Join(filepath.Dir(exe), "net/tcp6"))
					return strings.Contains(string(listening), ":0050 00000000000000000000000000000000:0000 0A")
				}
			}
			return false
		})
		k.terminate(t)
		k.await(t)
	}
}

// TestBypassRuncShared has a container in the namespace itself: the ports of the
// launcher are its.
func TestBypassRuncShared(t *testing.T) { testRuncShared(t, "serve") }

// TestBypassRuncInterrupted has a server that signals interrupt while it binds, which
// the filter of runc's container lets them do until the end.
func TestBypassRuncInterrupted(t *testing.T) { testRuncShared(t, "interrupted") }

// testRuncShared has a server of that kind of tool's in the container.
func testRuncShared(t *testing.T, kind string) {
	w := newWorld(t)
	k := newKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "--detach-netns", "-p", ":8080:80/tcp")
	dir := bundle(t, false, filepath.Join(k.stateDir, "bypass4netns.sock"), "")
	replaceInConfig(t, dir, `"serve"`, strconv.Quote(kind))
	k.Args = append(k.Args, "nsenter", "--net="+filepath.Join(k.stateDir, "netns"))
	w.runc(t, at4, k, dir)
	if _, err := w.get(t, at4, 0); err != nil {
		t.Error(err)
	}
	if state, why := k.portState(t, 1); state != api.PortNative {
		t.Errorf("the port is %s: %s", state, why)
	}
}

// rest is a request to bypass4netnsd's API.
func (w *world) rest(t *testing.T, socket, method, path, body string) string {
	t.Helper()
	r := runCmd(t, exec.Command("curl", "-sS", "--max-time", "60", "--unix-socket", socket, "-X", method, "-d", body, "http://b"+path))
	if r.code != 0 {
		t.Fatalf("%s %s: %s", method, path, r.stderr)
	}
	return r.stdout
}

// TestBypassDaemonAPI asks for a container's ports as nerdctl does.
func TestBypassDaemonAPI(t *testing.T) {
	for _, c := range []struct {
		name, flag, spec, state, why string
	}{
		{"native", "--disable-host-loopback=false", "", api.PortNative, ""},
		{"isolated", "--disable-host-loopback", "", api.PortRelay, "--disable-host-loopback"},
		{"ignore-bind", "--disable-host-loopback=false", `"ignoreBind":true,`, api.PortRelay, "ignoreBind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			daemon, listener, pidFile := w.startDaemon(t, c.flag)

			if got := w.rest(t, daemon, "POST", "/v1/bypass", `{"id":"c1"}`); !strings.Contains(got, `{"message":"the bypass has no socketPath"}`) {
				t.Error(got)
			}
			spec := fmt.Sprintf(`{"id":"c1","socketPath":%q,"pidFilePath":%q,%s"portMapping":[{"protos":["tcp"],"parentIP":"0.0.0.0","parentPort":8080,"childPort":80}]}`,
				listener, pidFile, c.spec)
			if got := w.rest(t, daemon, "POST", "/v1/bypass", spec); !strings.Contains(got, `"pid":`) {
				t.Error(got)
			}
			if got := w.rest(t, daemon, "POST", "/v1/bypass", spec); !strings.Contains(got, `exists already`) {
				t.Error(got)
			}
			if pid, _ := os.ReadFile(pidFile); len(pid) == 0 {
				t.Error("there is no pid file")
			}
			answer := w.answered(t, c.state)
			if remote := strings.Contains(answer, "<"+neighbour4); remote != (c.state == api.PortNative) || strings.Contains(answer, "<127.") {
				t.Errorf("%s: %s", c.state, answer)
			}
			if p := w.daemonPort(t, daemon); p.State != c.state || !strings.Contains(p.StateReason, c.why) {
				t.Errorf("the port is %s: %s", p.State, p.StateReason)
			}
			w.rest(t, daemon, "DELETE", "/v1/bypass/c1", "")
			if _, err := w.get(t, at4, 0); err == nil {
				t.Error("the port is still open")
			}
			if got := w.rest(t, daemon, "GET", "/v1/bypass", ""); got != "[]\n" {
				t.Error(got)
			}
		})
	}
}

// startDaemon starts a launcher that takes over containers, and in it runc, which
// waits for the listener of its container to be there.
func (w *world) startDaemon(t *testing.T, flag string) (daemon, listener, pidFile string) {
	t.Helper()
	tmp := t.TempDir()
	daemon, listener, pidFile = filepath.Join(tmp, "d.sock"), filepath.Join(tmp, "c.sock"), filepath.Join(tmp, "c.pid")
	k := newKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "--detach-netns", flag, "--bypass4netnsd-socket="+daemon)
	dir := bundle(t, true, listener, "")
	// A network, so that the relay has an address to show.
	net := "ip link add b0 type veth peer name b1; ip addr add 10.9.0.1/24 dev b0; ip link set b0 up; ip link set b1 up"
	run := fmt.Sprintf("while [ ! -e %s ]; do sleep 0.05; done; unshare --net sh -c 'ip link set lo up; %s; exec runc --root %s run -b %s c1'; exec sleep 100", // a server ends with its port
		listener, net, filepath.Join(dir, "run"), bundleWithoutNetwork(t, dir))
	k.Args = append(k.Args, "sh", "-c", run)
	w.launch(t, k)
	awaitSocket(t, daemon)
	return daemon, listener, pidFile
}

// answered is what a server says, which may be to another address than the client's if
// the port is relayed.
func (w *world) answered(t *testing.T, state string) (answer string) {
	t.Helper()
	poll(t, "an answer", func() bool {
		var err error
		answer, err = w.get(t, at4, 0)
		return err == nil || state == api.PortRelay && strings.Contains(answer, "<")
	})
	return answer
}

// daemonPort is the one port of the one container.
func (w *world) daemonPort(t *testing.T, daemon string) api.PortDetails {
	t.Helper()
	var list []struct {
		ID    string
		Ports []api.PortDetails
	}
	got := w.rest(t, daemon, "GET", "/v1/bypass", "")
	if err := json.Unmarshal([]byte(got), &list); err != nil || len(list) != 1 || list[0].ID != "c1" || len(list[0].Ports) != 1 {
		t.Fatalf("%v: %s", err, got)
	}
	return list[0].Ports[0]
}

// bundleWithoutNetwork makes a bundle stay in the network namespace of runc, which
// is another one than the launcher's.
func bundleWithoutNetwork(t *testing.T, dir string) string {
	t.Helper()
	replaceInConfig(t, dir, `,{"type":"network"}`, "")
	return dir
}

// replaceInConfig changes a bundle.
func replaceInConfig(t *testing.T, dir, from, to string) {
	t.Helper()
	file := filepath.Join(dir, "config.json")
	config, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, bytes.Replace(config, []byte(from), []byte(to), 1), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
