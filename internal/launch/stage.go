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
// command: for what only that process can do to itself. Above all, what the command
// is kept from by a filter and by Landlock must be no thread of the child: who is in
// the same Landlock domain may trace it, and with it have the child's memory, its
// descriptors, and its threads, which nothing is kept from.

// execName is argv[0] of a stage. Its further arguments are the stage, the path of
// the command, and the command.
const execName = "rootlesskit-exec"

type stage struct {
	// Report is the descriptor of a wire to the child: what became of the policy,
	// then an end of file when the command is executed, or why it is not.
	Report int `json:"report"`
	// Activation sets LISTEN_PID.
	Activation bool `json:"activation,omitempty"`
	// Policy is put on the process.
	Policy *seccomp.Policy `json:"policy,omitempty"`
}

// The messages of a stage.
const (
	kindPolicy      = "policy"     // execReply, with the listener
	kindNotExecuted = "unexecuted" // an error
)

// needed reports whether there is something to do.
func (s stage) needed() bool { return s.Activation || s.Policy != nil }

// argv executes the command by way of the stage.
func (s stage) argv(path string, command []string) ([]string, error) {
	encoded, err := json.Marshal(s)
	return append([]string{execName, string(encoded), path}, command...), err
}

// runStage executes the command. It returns on failure only, which the child has
// been told of.
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

// execError is the error in the words of a command that was started without a
// stage.
func execError(path string, err error) error {
	return &os.PathError{Op: "fork/exec", Path: path, Err: err}
}

// install puts the policy in place. Where that fails with nothing done, the command
// runs without it.
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

// awaitStage waits for the command to be executed.
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
