package test

import (
	"fmt"
	"strings"
	"testing"
)

// TestThousandPorts publishes 1,000 ports while a process may have 1,024
// descriptors: on one address and on all, each with one socket. They are served.
func TestThousandPorts(t *testing.T) {
	const ports, first = 1000, 10000
	for i, address := range []string{"127.0.0.1", "0.0.0.0"} {
		for _, flags := range []string{
			"--net=none --port-driver=builtin",
			"--net=gvisor-tap-vsock --port-driver=builtin --disable-host-loopback",
		} {
			t.Run(flags+" "+address, func(t *testing.T) {
				base := first + 2*ports*i
				args := strings.Fields(flags)
				for n := range ports {
					args = append(args, "-p", fmt.Sprintf("%s:%d:80/tcp", address, base+n))
				}
				k := newKit(t, append(args, webServer...)...).under("sh", "-c", `ulimit -n 1024 && exec "$0" "$@"`)
				k.start(t)
				k.awaitAPI(t)
				for _, n := range []int{0, ports / 2, ports - 1, 0} {
					get(t, fmt.Sprintf("http://127.0.0.1:%d/passwd", base+n))
				}
				if n := strings.Count(k.mustCtl(t, "list-ports", "--json"), "\n"); n != ports {
					t.Errorf("%d ports are listed", n)
				}
				k.mustCtl(t, "remove-ports", fmt.Sprint(ports))
			})
		}
	}
}
