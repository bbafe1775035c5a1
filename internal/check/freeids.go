package check

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// usermodFix gives the user a range of ids that no line of the two files uses.
func (h *Host) usermodFix() string {
	const count = 65536
	uid, gid := h.firstFreeID("etc/subuid"), h.firstFreeID("etc/subgid")
	return fmt.Sprintf("sudo usermod --add-subuids %d-%d --add-subgids %d-%d %s",
		uid, uid+count-1, gid, gid+count-1, h.User.Username)
}

// firstFreeID returns the first id above all ranges of a file such as
// /etc/subuid, and above the ids that login.defs(5) reserves for users.
func (h *Host) firstFreeID(file string) uint64 {
	next := uint64(100000)
	b, _ := fs.ReadFile(h.Root, file) // a missing file has no ranges
	for line := range strings.Lines(string(b)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) != 3 {
			continue
		}
		first, err1 := strconv.ParseUint(fields[1], 10, 32)
		count, err2 := strconv.ParseUint(fields[2], 10, 32)
		if err1 == nil && err2 == nil {
			next = max(next, first+count)
		}
	}
	return next
}
