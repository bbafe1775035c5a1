// Package userns maps ids into a new user namespace, and looks up subordinate
// ids.
package userns

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
)

// Mapping is one line of /proc/PID/uid_map: it maps Count ids, from Inside on,
// to the ids from Host on outside (user_namespaces(7)).
type Mapping struct {
	Inside, Host, Count uint32
}

// IDMap maps the ids of a new user namespace.
type IDMap struct {
	UIDs, GIDs []Mapping
	// Skipped describes ranges that were left out because they contain the user's
	// own id, for a warning.
	Skipped []string
}

// NewIDMap maps the user to root and the subordinate ids to the ids from 1 on.
func NewIDMap(uid, gid int, sub SubIDs) IDMap {
	var m IDMap
	m.UIDs = m.assign("subuid", uint32(uid), sub.UIDs)
	m.GIDs = m.assign("subgid", uint32(gid), sub.GIDs)
	return m
}

func (m *IDMap) assign(kind string, own uint32, ranges []Range) []Mapping {
	maps := []Mapping{{Inside: 0, Host: own, Count: 1}}
	next := uint32(1)
	for _, r := range ranges {
		if r.Count == 0 {
			continue
		}
		// The kernel refuses a map that contains an id of the host twice.
		if own >= r.Start && own-r.Start < r.Count {
			m.Skipped = append(m.Skipped, fmt.Sprintf("%s range %d+%d holds the id %d of the user itself", kind, r.Start, r.Count, own))
			continue
		}
		maps = append(maps, Mapping{Inside: next, Host: r.Start, Count: r.Count})
		next += r.Count
	}
	return maps
}

// Single returns a map of only the user's own ids.
func (m IDMap) Single() IDMap { return IDMap{UIDs: m.UIDs[:1], GIDs: m.GIDs[:1]} }

// SingleID reports whether only the user's own ids are mapped.
func (m IDMap) SingleID() bool { return len(m.UIDs) == 1 && len(m.GIDs) == 1 }

// Write sets the map of a process's user namespace. Subordinate ids need
// newuidmap(1) and newgidmap(1), which are privileged. The kernel lets a user
// map a single id without them, but then forbids setgroups(2).
func (m IDMap) Write(ctx context.Context, pid int) error {
	if m.SingleID() {
		return m.writeSingle(pid)
	}
	// Both programs run at the same time, since they take a large part of the start-up.
	var uidErr, gidErr error
	var both sync.WaitGroup
	both.Go(func() { uidErr = runMapTool(ctx, "newuidmap", pid, m.UIDs) })
	both.Go(func() { gidErr = runMapTool(ctx, "newgidmap", pid, m.GIDs) })
	both.Wait()
	if uidErr != nil {
		return uidErr
	}
	return gidErr
}

func (m IDMap) writeSingle(pid int) error {
	for _, f := range []struct{ name, content string }{
		{"setgroups", "deny"}, // must come first, or the kernel refuses gid_map (user_namespaces(7))
		{"uid_map", format(m.UIDs)},
		{"gid_map", format(m.GIDs)},
	} {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", pid, f.name), []byte(f.content), 0); err != nil {
			return fmt.Errorf("mapping the user's own id: %w", err)
		}
	}
	return nil
}

func format(maps []Mapping) string {
	var b strings.Builder
	for _, m := range maps {
		fmt.Fprintf(&b, "%d %d %d\n", m.Inside, m.Host, m.Count)
	}
	return b.String()
}

func runMapTool(ctx context.Context, tool string, pid int, maps []Mapping) error {
	args := []string{strconv.Itoa(pid)}
	for _, m := range maps {
		args = append(args, fmt.Sprint(m.Inside), fmt.Sprint(m.Host), fmt.Sprint(m.Count))
	}
	path, err := exec.LookPath(tool)
	if err != nil {
		return fmt.Errorf("%w (install the package uidmap or shadow-utils)", err)
	}
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return mapToolError(tool, path, maps, strings.TrimSpace(string(out)), err)
	}
	return nil
}
