package launch

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// sd_listen_fds(3): LISTEN_PID names the process that LISTEN_FDS descriptors,
// from 3 on, are meant for; LISTEN_FDNAMES names them. If LISTEN_PID names the
// launcher, a descriptor goes
//
//   - to the published port that it is bound to (hostsock.Inherited),
//   - or else to the command, from 3 on again. Its PID is known only once it
//     runs. So a stage sets LISTEN_PID and executes the command.
//
// If LISTEN_PID names another process, everything is passed on unchanged.

const (
	listenPID     = "LISTEN_PID"
	listenPIDFDID = "LISTEN_PIDFDID" // the same process, as the inode of a pidfd
	listenFDs     = "LISTEN_FDS"
	listenFDNames = "LISTEN_FDNAMES"
	firstListenFD = 3
)

// activatedParent reports whether LISTEN_PID names this process.
func activatedParent() bool {
	return os.Getenv(listenPID) == strconv.Itoa(os.Getpid())
}

// activationFDs returns the inherited descriptors that LISTEN_FDS counts.
func activationFDs(inherited []int, count string) []int {
	n, err := strconv.Atoi(count)
	if err != nil {
		return nil
	}
	var fds []int
	for _, fd := range inherited {
		if fd >= firstListenFD && fd-firstListenFD < n {
			fds = append(fds, fd)
		}
	}
	slices.Sort(fds)
	return fds
}

// leaveOut returns the layout of descriptors (see filesAtSameNumbers) and the
// environment for a command that gets the inherited descriptors except those
// taken. The remaining descriptors of the activation move up.
func leaveOut(taken, inherited []int, env []string) (files []uintptr, newEnv []string) {
	activation := activationFDs(inherited, getenv(env, listenFDs))
	var others, left []int
	var names []string
	oldNames := strings.Split(getenv(env, listenFDNames), ":")
	for _, fd := range inherited {
		if !slices.Contains(activation, fd) {
			others = append(others, fd)
		}
	}
	for _, fd := range activation {
		if slices.Contains(taken, fd) {
			continue
		}
		left = append(left, fd)
		if i := fd - firstListenFD; i < len(oldNames) {
			names = append(names, oldNames[i])
		}
	}
	files = filesAtSameNumbers(others)
	for i, fd := range left {
		files = placeFile(files, firstListenFD+i, fd)
	}
	if len(left) == 0 {
		return files, unsetenv(env, listenPID, listenFDs, listenFDNames)
	}
	newEnv = setenv(env, listenFDs, strconv.Itoa(len(left)))
	if getenv(env, listenFDNames) != "" {
		newEnv = setenv(newEnv, listenFDNames, strings.Join(names, ":"))
	}
	return files, newEnv
}
