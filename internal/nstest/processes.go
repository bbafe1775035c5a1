package nstest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Children lists the children of all threads of a process: an orphan may become the
// child of any of them.
func Children(pid int) []int {
	var all []int
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		b, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

// Descendants lists the processes below one.
func Descendants(pid int) []int {
	var below []int
	for _, child := range Children(pid) {
		below = append(append(below, child), Descendants(child)...)
	}
	return below
}
