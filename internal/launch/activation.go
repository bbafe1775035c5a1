package launch

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// sd_listen_fds(3): LISTEN_PID names the process that the descriptors are
// meant for. When it named the launcher, they are the command's, whose pid is
// known only once it runs. So the command is then started by way of a second
// execution of this program, which sets the variable and executes the command.

const listenPID = "LISTEN_PID"

// activatedParent tells whether LISTEN_PID names this process.
func activatedParent() bool {
	return os.Getenv(listenPID) == strconv.Itoa(os.Getpid())
}

// execName is argv[0] of the intermediate execution.
const execName = "rootlesskit-exec"

// activationExec executes args[0] with LISTEN_PID set; it returns on failure
// only.
func activationExec(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("%s: expected a path and a command", execName)
	}
	env := setenv(os.Environ(), listenPID, strconv.Itoa(os.Getpid()))
	return &os.PathError{Op: "exec", Path: args[0], Err: syscall.Exec(args[0], args[1:], env)}
}
