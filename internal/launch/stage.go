package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"

	"rootlesskit/internal/seccomp"
	"rootlesskit/internal/wire"
)

// A stage is an execution of this program in the process of the command, before the
// command, for what only that process can do to itself. Above all, no thread of the
// child must be in the command's Landlock domain: processes in the same domain may
// trace each other, so the command could get the child's memory, its descriptors,
// and its unrestricted threads.

// execName is argv[0] of a stage. The other arguments are the stage, the path of
// the command, and the command.
const execName = "rootlesskit-exec"

type stage struct {
	// Report is the descriptor of a wire to the child. It carries the result of
	// installing the policy, then end of file when the command is executed, or the
	// reason why it is not.
	Report int `json:"report"`
	// Activation sets LISTEN_PID.
	Activation bool `json:"activation,omitempty"`
	// Policy is installed in the process.
	Policy *seccomp.Policy `json:"policy,omitempty"`
}

// The messages of a stage.
const (
	kindPolicy      = "policy"     // execReply, with the listener
	kindNotExecuted = "unexecuted" // an error
)

// needed reports whether the stage has anything to do.
func (s stage) needed() bool { return s.Activation || s.Policy != nil }

// argv returns the arguments that execute the command through the stage.
func (s stage) argv(path string, command []string) ([]string, error) {
	encoded, err := json.Marshal(s)
	return append([]string{execName, string(encoded), path}, command...), err
}

// runStage executes the command. It only returns on failure, which it has
// reported to the child.
func runStage(args []string) error {
	var s stage
	if len(args) < 3 || json.Unmarshal([]byte(args[0]), &s) != nil {
		return fmt.Errorf("%s is started by rootlesskit only", execName)
	}
	conn, err := wire.NewConn(s.Report)
	if err != nil {
		return err
	}
	_ = conn.Send(wire.Message{Kind: kindNotExecuted, Error: s.exec(conn, args[1], args[2:]).Error()})
	return ErrReported
}

// exec runs on the thread that executes the command.
func (s stage) exec(conn *wire.Conn, path string, command []string) error {
	if s.Policy != nil {
		if err := s.install(conn); err != nil {
			return err
		}
	}
	env := os.Environ()
	if s.Activation {
		env = setenv(env, listenPID, strconv.Itoa(os.Getpid()))
	}
	return execError(path, syscall.Exec(path, command, env))
}

// execError returns the same error as for a command that is started without a
// stage.
func execError(path string, err error) error {
	return &os.PathError{Op: "fork/exec", Path: path, Err: err}
}

// install installs the policy. If that fails and nothing is installed, the command
// runs without the policy.
func (s stage) install(conn *wire.Conn) error {
	m := wire.Message{Kind: kindPolicy}
	var reply execReply
	listener, err := seccomp.Install(*s.Policy)
	var half *seccomp.HalfInstalledError
	switch {
	case errors.As(err, &half):
		return err
	case err != nil:
		reply.PolicyError = err.Error()
	default:
		defer syscall.Close(listener)
		m.FDs = []int{listener}
	}
	if m.Body, err = json.Marshal(reply); err != nil {
		return err
	}
	return conn.Send(m)
}

// awaitStage waits until the command has been executed.
func awaitStage(conn *wire.Conn) (s started) {
	defer func() {
		if s.err != nil {
			closeFDs(s.listener)
			s.listener = nil
		}
	}()
	for {
		m, err := conn.Recv()
		switch {
		case err == io.EOF:
			return s
		case err != nil:
			s.err = err
			return s
		case m.Kind == kindPolicy:
			s.listener = append(s.listener, m.FDs...)
			s.err = m.Decode(&s.reply)
		default:
			closeFDs(m.FDs)
			s.err = errors.New(m.Error)
		}
		if s.err != nil {
			return s
		}
	}
}
