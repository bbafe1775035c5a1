package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"rootlesskit/internal/kernel"
)

// nfTables checks the packet filter that helps to show servers inside the
// addresses of clients.
func (h *Host) nfTables(p Probe) Result {
	const name = "nf_tables"
	_, noProgram := h.LookPath("iptables")
	switch {
	case p.Started != "" || p.IDMap != "" || p.Namespaces != "":
		return bad(name, Warning, "first make user namespaces work", "unknown without a user namespace")
	case p.NFTables == "":
		return ok(name, "works in a user namespace")
	case p.IPTables == "" && noProgram == nil:
		return ok(name, "%s; iptables works in a user namespace and is used instead", p.NFTables)
	}
	fix := "sudo modprobe " + kernel.NFTables.Modules + "; or install iptables and sudo modprobe -a " + kernel.IPTables.Modules
	why := p.IPTables
	if noProgram != nil {
		why = noProgram.Error()
	}
	return bad(name, Warning, fix, "%s; iptables does not work either (%s): servers inside may not see the addresses of clients", p.NFTables, why)
}

// kernel reports which features of newer kernels this one lacks; each has a
// fallback.
func (h *Host) kernel() Result {
	const name = "kernel"
	lacks := h.Lacks()
	if len(lacks) == 0 {
		return ok(name, "Linux %s has every feature that is used", h.Release)
	}
	var names []string
	for _, f := range lacks {
		names = append(names, fmt.Sprintf("%s (Linux %s)", f.Name, f.Since))
	}
	return ok(name, "Linux %s lacks %s; docs/kernels.md describes the fallbacks", h.Release, strings.Join(names, ", "))
}

func (h *Host) privilegedPorts() Result {
	const name, key = "privileged-ports", "net.ipv4.ip_unprivileged_port_start"
	if h.BindService {
		return ok(name, "this program may publish all ports (cap_net_bind_service)")
	}
	v, _ := h.sysctl(key)
	first, err := strconv.Atoi(v)
	if err != nil {
		first = 1024 // the kernel's default
	}
	if first > 80 {
		return bad(name, Warning, fmt.Sprintf("sudo setcap cap_net_bind_service=ep %s, or %s; or use a systemd socket, see docs/systemd.md", h.Program, setSysctl(key, "80")),
			"ports below %d cannot be published", first)
	}
	return ok(name, "ports from %d can be published", first)
}

func (h *Host) pingGroupRange() Result {
	const name, key = "ping", "net.ipv4.ping_group_range"
	var low, high int
	v, _ := h.sysctl(key)
	if _, err := fmt.Sscan(v, &low, &high); err != nil {
		low, high = 1, 0 // the kernel's default: no group
	}
	if slices.ContainsFunc(h.GIDs, func(gid int) bool { return low <= gid && gid <= high }) {
		return ok(name, "groups %d to %d may ping", low, high)
	}
	return bad(name, Warning, setSysctl(key, "0 2147483647"), "no group of %s is in %s (%s): hosts outside cannot be pinged from inside",
		h.User.Username, key, v)
}
