package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"rootlesskit/api"
	"rootlesskit/internal/unixsock"
)

// peerEnv makes this test binary a client of the socket that it names.
const peerEnv = "APISERVER_TEST_PEER"

func peerMain(socket string) int {
	_, err := api.NewClient(socket).Info(context.Background())
	fmt.Printf("uid %d: %v\n", os.Getuid(), err)
	return 0
}

// runPeer is a client in a user namespace where it has that uid: 0 is this
// user, the others are its subordinate ids.
func runPeer(t *testing.T, socket, uid string) string {
	t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd := exec.Command("unshare", "--user", "--map-root-user", "--map-auto", "--setuid", uid, "--setgid", uid, "/proc/self/fd/3")
	cmd.Env = append(os.Environ(), peerEnv+"="+socket)
	cmd.ExtraFiles = []*os.File{self}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	return strings.TrimSpace(string(out))
}

func TestPeersOfTheChildsUserNamespace(t *testing.T) {
	h := start(t)
	dir := filepath.Dir(h.socket)
	for _, dir := range []string{dir, filepath.Dir(dir)} { // others may enter
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := runPeer(t, h.socket, "0"); got != "uid 0: <nil>" {
		t.Errorf("the child's root: %s", got)
	}
	if got := runPeer(t, h.socket, "1"); !strings.Contains(got, "permission denied") {
		t.Errorf("a subordinate id: %s", got)
	}
	// Not even with the permission to connect.
	if err := os.Chmod(h.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	got := runPeer(t, h.socket, "1")
	if !strings.HasPrefix(got, "uid 1: uid ") || !strings.HasSuffix(got, fmt.Sprintf("may not use this API: only uid %d and root may", os.Getuid())) {
		t.Errorf("a subordinate id on a socket for all: %s", got)
	}
}

func TestOwnerAndRoot(t *testing.T) {
	for uid, want := range map[int]bool{0: true, os.Geteuid(): true, os.Geteuid() + 1: false, 65534: false} {
		if got := unixsock.OwnerOrRoot(uint32(uid)); got != want {
			t.Errorf("uid %d: %v", uid, got)
		}
	}
}

func TestRefusal(t *testing.T) {
	h := start(t, func(h *harness) { h.server.peerAllowed = func(uint32) bool { return false } })
	text := fmt.Sprintf("uid %d may not use this API: only uid %[1]d and root may", os.Getuid())
	resp := check(t, h, "GET", "/v1/info", "", message("403", text))
	if !resp.Close {
		t.Error("the connection stays open")
	}
	check(t, h, "POST", "/v1/ports", "{}", message("403", text))
	_, err := h.client(t).Info(t.Context())
	var refusal *api.Error
	if !errors.As(err, &refusal) || refusal.StatusCode != http.StatusForbidden {
		t.Errorf("error %v", err)
	}
}

// What cannot be identified is refused.
func TestUnknownPeer(t *testing.T) {
	h := start(t)
	handler := h.server.checkPeer(h.server.routes())
	req := httptest.NewRequest("GET", "/v1/info", nil)
	noPeer := httptest.NewRecorder()
	handler.ServeHTTP(noPeer, req)
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	noSocket := httptest.NewRecorder()
	handler.ServeHTTP(noSocket, req.WithContext(withPeer(t.Context(), a)))
	if noPeer.Code != http.StatusForbidden || noSocket.Code != http.StatusForbidden {
		t.Errorf("%d and %d, want 403", noPeer.Code, noSocket.Code)
	}
}
