package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNsenter: the ways in that set-up tools and clients use, with every
// network. Each shows the network of the namespace, the files of its mount
// namespace, and root.
func TestNsenter(t *testing.T) {
	const look = `echo $(id -u) $(ip -4 -o addr show %s | grep -c "inet ") $(test -e /etc/inside && echo inside)`
	for network, ifname := range map[string]string{"none": "lo", "slirp4netns": "tap0", "pasta": "tap0", "gvisor-tap-vsock": "tap0"} {
		for _, detach := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s detach=%v", network, detach), func(t *testing.T) {
				t.Parallel()
				flags := []string{"--net=" + network, "--disable-host-loopback", "--copy-up=/etc"}
				script := fmt.Sprintf(look, ifname)
				if detach {
					flags = append(flags, "--detach-netns")
				}
				k := startKit(t, append(flags, "sh", "-c", "touch /etc/inside; echo ready; sleep 60")...)
				poll(t, "ready", func() bool { return strings.Contains(k.output.String(), "ready") })
				pid, file := k.childPID(t), filepath.Join(k.stateDir, "netns")
				recipes := map[string][]string{
					"-m -n -U -t":      {"-m", "-n", "-U", "--preserve-credentials", "-t", pid, "sh", "-c", script},
					"-F, as nerdctl's": {"--no-fork", "--wd=/", "--preserve-credentials", "-m", "-n", "-U", "-t", pid, "-F", "--", "sh", "-c", script},
				}
				if detach {
					if b, err := os.ReadFile(file); err != nil || len(b) > 0 {
						t.Errorf("the host sees %q, %v in the file netns", b, err)
					}
					recipes = map[string][]string{
						"netns, from inside": {"-m", "-U", "--preserve-credentials", "-t", pid, "nsenter", "--net=" + file, "sh", "-c", script},
						"netns, from the host": {"-m", "-U", "--preserve-credentials", "-t", pid,
							"--net=/proc/" + pid + "/root" + file, "sh", "-c", script},
					}
				}
				for name, args := range recipes {
					r := runCmd(t, exec.CommandContext(t.Context(), "nsenter", args...))
					if r.code != 0 || r.stdout != "0 1 inside\n" {
						t.Errorf("%s: code %d: %q %s", name, r.code, r.stdout, r.stderr)
					}
				}
			})
		}
	}
}
