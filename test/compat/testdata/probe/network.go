package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// network reports the namespace of the calling thread, as iproute2 shows it.
func network(prefix string) {
	for _, args := range [][]string{
		{"ip", "-o", "-d", "link"}, {"ip", "-o", "addr"}, {"ip", "rule"}, {"ip", "-6", "rule"},
		{"ip", "route", "show", "table", "all"},
		{"ss", "-H", "-tuwxln"},
		{"nft", "list", "ruleset"},
	} {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		key := prefix + "." + strings.Join(args, " ")
		if err != nil {
			say(key, string(out)+reason(err))
		}
		if args[0] == "ss" {
			out = withoutUnix(out)
		}
		seen := map[string]int{}
		for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
			if strings.Contains(line, "fe80::") && !strings.Contains(line, "fe80::/64") {
				continue // it comes when the kernel has looked for duplicates
			}
			line = strings.Join(strings.Fields(line), " ")
			say(fmt.Sprint(key, ": ", line, " #", seen[line]), "there")
			seen[line]++
		}
	}
	for _, name := range []string{"/proc/thread-self/net/dev_mcast", "/proc/thread-self/net/if_inet6", "/proc/thread-self/net/packet", "/proc/thread-self/net/protocols"} {
		_, err := os.Stat(name)
		say(prefix+".stat "+name, reason(err))
	}
}

// withoutUnix leaves out Unix sockets of the rest of the machine.
func withoutUnix(out []byte) []byte {
	var kept []string
	for _, line := range strings.Split(string(out), "\n") {
		if !strings.HasPrefix(line, "u_") || strings.Contains(line, " @") {
			kept = append(kept, line)
		}
	}
	return []byte(strings.Join(kept, "\n"))
}
