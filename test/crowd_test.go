package test

import (
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"rootlesskit/api"
	"rootlesskit/internal/nstest"
)

// TestCrowd: more clients than the launcher may have descriptors do not end a
// port. It serves again within a second after they are gone; the API answers all
// the while.
func TestCrowd(t *testing.T) {
	for _, driver := range []string{"builtin", "gvisor-tap-vsock"} {
		t.Run(driver, func(t *testing.T) {
			port := nstest.FreePort(t)
			address := fmt.Sprintf("127.0.0.1:%d", port)
			flags := []string{"--net=gvisor-tap-vsock", "--port-driver=" + driver, "--disable-host-loopback", "-p", address + ":80/tcp"}
			k := newKit(t, append(flags, "python3", "-c", quickServer)...).under("prlimit", "--nofile=256")
			k.start(t)
			k.awaitAPI(t)
			get(t, "http://"+address+"/")
			leave := crowd(t, address, 900)
			poll(t, "a shortage", func() bool { return detailsOf(t, k).AcceptErrors > 0 })
			leave()
			left := time.Now()
			get(t, "http://"+address+"/") // how soon is for the benchmark to say: a machine may be busy
			t.Logf("the port served again after %v", time.Since(left))
			detailsOf(t, k) // it is still listed
		})
	}
}

// quickServer answers requests on port 80. It has hundreds of clients to get
// through that have left, in little time, so it starts no process for them.
const quickServer = `
import asyncio
async def serve(r, w):
    try:
        await r.readuntil(b"\r\n\r\n")
        w.write(b"HTTP/1.0 200 OK\r\n\r\nok")
        await w.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    w.close()
async def main():
    async with await asyncio.start_server(serve, "0.0.0.0", 80, backlog=1024) as s:
        await s.serve_forever()
asyncio.run(main())
`

// crowd connects n clients, which stay until leave.
func crowd(t *testing.T, address string, n int) (leave func()) {
	var conns []net.Conn
	for range n {
		c, err := net.DialTimeout("tcp4", address, 10*time.Second)
		if err != nil {
			break // the queue is full
		}
		conns = append(conns, c)
	}
	leave = func() {
		for _, c := range conns {
			c.Close()
		}
		conns = nil
	}
	t.Cleanup(leave)
	return leave
}

// detailsOf returns the counters of the only port.
func detailsOf(t *testing.T, k *kit) api.PortDetails {
	t.Helper()
	client := api.NewClient(filepath.Join(k.stateDir, "api.sock"))
	defer client.Close()
	ports, err := client.ListPortsDetails(t.Context())
	if err != nil || len(ports) != 1 {
		t.Fatalf("ports: %v, %v", ports, err)
	}
	return *ports[0].Details
}
