package fdswap

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// What /proc says of processes that may be hostile: whatever it says must do no
// harm, and nothing of it is believed that a process could write itself.

// maxProcFile bounds a file: a process may have as many groups, and watch as many
// files with epoll, as it likes.
const maxProcFile = 16 << 20

func readProc(format string, args ...any) (string, error) {
	f, err := os.Open("/proc/" + fmt.Sprintf(format, args...))
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxProcFile))
	return string(b), err
}

// keyValues parses lines of the form "key: value", in their order.
func keyValues(text string, each func(key, value string)) {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			each(key, strings.TrimSpace(value))
		}
	}
}

// fdInfo reads /proc/PID/fdinfo/FD: lines by their key, see proc_pid_fdinfo(5).
func fdInfo(pid, fd int) map[string][]string {
	text, err := readProc("%d/fdinfo/%d", pid, fd)
	if err != nil {
		return nil
	}
	return parseFDInfo(text)
}

func parseFDInfo(text string) map[string][]string {
	info := map[string][]string{}
	keyValues(text, func(key, value string) { info[key] = append(info[key], value) })
	return info
}

// socketMount is the mount of all sockets, which no file of another kind is on.
var socketMount = sync.OnceValue(func() string {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	return strings.Join(fdInfo(os.Getpid(), fd)["mnt_id"], "")
})

// linkOf is the link of a descriptor by its fdinfo: that of a socket, of an epoll
// instance that watches something, or "". What the kernel says of every file comes
// first.
func linkOf(info map[string][]string, socketMount string) string {
	if len(info["tfd"]) > 0 {
		return epollLink
	}
	mount, inode := info["mnt_id"], info["ino"]
	if len(mount) == 0 || len(inode) == 0 || mount[0] != socketMount || socketMount == "" {
		return ""
	}
	n, err := strconv.ParseUint(inode[0], 10, 64)
	if err != nil {
		return ""
	}
	return socketLink(n)
}

const epollLink = "anon_inode:[eventpoll]"

func socketLink(inode uint64) string { return fmt.Sprintf("socket:[%d]", inode) }

// fdLink is what a descriptor leads to. The directory fd of a process that was
// executed by another user is that user's alone, even where the process may be
// traced; fdinfo is readable then (Linux 5.14).
func fdLink(pid, fd int) string {
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
	if errors.Is(err, os.ErrPermission) {
		return linkOf(fdInfo(pid, fd), socketMount())
	}
	return link
}

// fdsOf are the descriptors of a process or thread that lead to what is wanted;
// none where the process is not ours to look into.
func fdsOf(pid int, wanted func(link string) bool) []int {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/fd", pid))
	if errors.Is(err, os.ErrPermission) {
		dir, err = os.Open(fmt.Sprintf("/proc/%d/fdinfo", pid))
	}
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var fds []int
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err == nil && wanted(fdLink(pid, fd)) {
			fds = append(fds, fd)
		}
	}
	return fds
}

// processes lists all others that /proc shows.
func processes() []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, d := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(d)); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}
