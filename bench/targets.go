package main

import (
	"fmt"
	"io"
	"os/exec"
	"slices"
	"text/tabwriter"
)

// Target is one configuration that is measured. A new driver is one line of
// allTargets.
type Target struct {
	Name     string
	Launcher string   // ours, upstream, or "" for no namespace at all
	Net      string   // --net
	Ports    string   // --port-driver
	Needs    []string // programs that must be on PATH
	Flags    []string // further flags of the launcher
	// OnDemand targets are measured only where --targets names them.
	OnDemand bool
	// Engine is the container engine that the agent runs in a container of; empty: the
	// agent is the launcher's command.
	Engine string
	// Server is the web server that is measured; empty: the agent's own.
	Server string
}

const (
	ours     = "ours"
	upstream = "upstream"
	direct   = "direct"
)

// allTargets is in the order of the tables.
var allTargets = []Target{
	{Name: direct},
	{Name: "ours-builtin", Launcher: ours, Net: "none", Ports: "builtin"},
	{Name: "ours-builtin-seen", Launcher: ours, Net: "gvisor-tap-vsock", Ports: "builtin", OnDemand: true},
	{Name: "ours-builtin-unseen", Launcher: ours, Net: "gvisor-tap-vsock", Ports: "builtin", Flags: []string{"--source-ip-transparent=false"}, OnDemand: true},
	{Name: "ours-bypass", Launcher: ours, Net: "gvisor-tap-vsock", Ports: "bypass4netns"},
	{Name: "ours-bypass-isolated", Launcher: ours, Net: "gvisor-tap-vsock", Ports: "bypass4netns", Flags: []string{"--disable-host-loopback"}, OnDemand: true},
	{Name: "upstream-builtin", Launcher: upstream, Net: "none", Ports: "builtin"},
	{Name: "ours-docker", Launcher: ours, Net: "gvisor-tap-vsock", Ports: "builtin", OnDemand: true},
	{Name: "upstream-docker", Launcher: upstream, Net: "gvisor-tap-vsock", Ports: "builtin", OnDemand: true},
	{Name: "ours-gvisor", Launcher: ours, Net: "gvisor-tap-vsock", Ports: "gvisor-tap-vsock"},
	{Name: "ours-gvisor-1500", Launcher: ours, Net: "gvisor-tap-vsock", Ports: "gvisor-tap-vsock", Flags: []string{"--mtu=1500"}},
	{Name: "upstream-gvisor", Launcher: upstream, Net: "gvisor-tap-vsock", Ports: "gvisor-tap-vsock"},
	{Name: "ours-docker-run", Launcher: ours, Net: "gvisor-tap-vsock", Ports: "builtin", Engine: "docker", Needs: dockerPrograms, OnDemand: true},
	{Name: "ours-docker-run-proxied", Launcher: ours, Net: "gvisor-tap-vsock", Ports: "builtin", Engine: "docker", Needs: dockerPrograms, Flags: []string{"--source-ip-transparent=false"}, OnDemand: true},
	{Name: "upstream-docker-run", Launcher: upstream, Net: "gvisor-tap-vsock", Ports: "builtin", Engine: "docker", Needs: dockerPrograms, OnDemand: true},
	{Name: "ours-slirp4netns", Launcher: ours, Net: "slirp4netns", Ports: "slirp4netns", Needs: []string{"slirp4netns"}},
	{Name: "upstream-slirp4netns", Launcher: upstream, Net: "slirp4netns", Ports: "slirp4netns", Needs: []string{"slirp4netns"}},
	{Name: "ours-pasta", Launcher: ours, Net: "pasta", Ports: "implicit", Needs: []string{"pasta"}},
	{Name: "upstream-pasta", Launcher: upstream, Net: "pasta", Ports: "implicit", Needs: []string{"pasta"}},
	{Name: "ours-pesto", Launcher: ours, Net: "pasta", Ports: "pesto", Needs: []string{"pasta", "pesto"}},
	{Name: "upstream-pesto", Launcher: upstream, Net: "pasta", Ports: "pesto", Needs: []string{"pasta", "pesto"}},
	{Name: "podman-ours", Launcher: podmanOurs},
	{Name: "podman-own", Launcher: podmanOwn},
}

func usualTargets() []Target {
	return slices.DeleteFunc(slices.Clone(allTargets), func(t Target) bool { return t.OnDemand })
}

// missing names the program that the target needs and that is not installed.
func (t Target) missing() string {
	for _, name := range t.Needs {
		if _, err := exec.LookPath(name); err != nil {
			return name
		}
	}
	return ""
}

// launcherFlags are the flags to run an agent that listens on port, published on
// the address of the host.
func (t Target) launcherFlags(stateDir, address string, port int) []string {
	if t.Engine != "" {
		return dockerFlags(stateDir, t)
	}
	flags := []string{"--state-dir=" + stateDir, "--net=" + t.Net, "--port-driver=" + t.Ports}
	if t.Net != "none" {
		flags = append(flags, "--copy-up=/etc")
	}
	if t.Ports != "implicit" {
		flags = append(flags, publish(address, port, "tcp"), publish(address, port, "udp"))
	}
	return append(flags, t.Flags...)
}

func publish(address string, port int, proto string) string {
	return fmt.Sprintf("--publish=%s:%d:%d/%s", address, port, port, proto)
}

// baseline names the upstream target that one of ours is compared with: the
// same drivers, else builtin.
func (t Target) baseline() string {
	if t.Launcher == podmanOurs {
		return "podman-own"
	}
	if t.Launcher != ours {
		return ""
	}
	i := slices.IndexFunc(allTargets, func(o Target) bool {
		return o.Launcher == upstream && o.Net == t.Net && o.Ports == t.Ports && o.Engine == t.Engine
	})
	if i < 0 {
		return "upstream-builtin"
	}
	return allTargets[i].Name
}

// launched says that there is a launcher to look at.
func launched(t Target) bool { return t.Launcher != "" && !t.podman() }

// hasNetwork says that the target's command can reach the host, and that no
// earlier target has the same network with the same flags.
func hasNetwork(t Target) bool {
	if t.Launcher == "" || t.podman() {
		return t.Launcher == ""
	}
	first := slices.IndexFunc(allTargets, func(o Target) bool {
		return !o.OnDemand && o.Ports != "bypass4netns" && o.Launcher == t.Launcher && o.Net == t.Net && slices.Equal(o.Flags, t.Flags)
	})
	return t.Net != "none" && first >= 0 && allTargets[first].Name == t.Name
}

// withoutNetwork says that the target is its launcher's --net=none.
func withoutNetwork(t Target) bool { return t.Net == "none" && t.Ports == "builtin" }

func printList(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	defer tw.Flush()
	fmt.Fprintln(tw, "GROUP\tFIGURE\tMEANING")
	for _, f := range allFigures() {
		fmt.Fprintf(tw, "%s\t%s\t%s\n", f.Group, f.ID, f.Title)
	}
	fmt.Fprintln(tw, "\nTARGET\tNET\tPORTS\tNEEDS")
	for _, t := range allTargets {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%v\n", t.Name, t.Net, t.Ports, t.Needs)
	}
}
