package launch

import (
	"bytes"
	"fmt"
	"os"

	"rootlesskit/internal/driver"
)

// writeEtcFiles writes the files of the state directory that the child mounts
// over those of /etc, and returns their names.
func writeEtcFiles(state *stateDir, link driver.Link) ([]string, error) {
	if len(link.DNS) == 0 {
		return nil, nil // a network without name servers needs no names of hosts
	}
	hosts, err := hostsFile(link)
	if err != nil {
		return nil, err
	}
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("reading the host's resolver configuration: %w", err)
	}
	files := []struct {
		name    string
		content []byte
	}{{"resolv.conf", resolvConf(link, host)}, {"hosts", hosts}}
	var names []string
	for _, f := range files {
		if err := state.write(f.name, f.content, 0o644); err != nil {
			return nil, fmt.Errorf("writing %s for the child: %w", f.name, err)
		}
		names = append(names, f.name)
	}
	return names, nil
}

// hostsFile returns the host's /etc/hosts, with the host's own name on the
// loopback address, since the namespace does not have the host's address.
func hostsFile(link driver.Link) ([]byte, error) {
	host, err := os.ReadFile("/etc/hosts")
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("reading the host's hosts file: %w", err)
	}
	name, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("reading the host's name: %w", err)
	}
	b := bytes.NewBuffer(host)
	fmt.Fprintf(b, "\n127.0.0.1 %s\n::1 %s\n", name, name)
	for _, h := range link.HostLocals {
		fmt.Fprintf(b, "%s %s\n", h.Addr, h.Name)
	}
	return b.Bytes(), nil
}
