package compat

import (
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// worlds are ways to start the launcher: each script ends with its execution.
var worlds = map[string]string{
	"umask 077":               `umask 077; exec "$@"`,
	"umask 0":                 `umask 0; exec "$@"`,
	"few descriptors":         `ulimit -Sn 200; exec "$@"`,
	"few descriptors, hard":   `ulimit -n 300; exec "$@"`,
	"core files":              `ulimit -Sc unlimited; exec "$@"`,
	"a small stack":           `ulimit -s 1024; exec "$@"`,
	"file size":               `ulimit -f 1000000; exec "$@"`,
	"ignored signals":         `trap "" HUP INT QUIT PIPE USR1 TTOU; exec "$@"`,
	"nice":                    `exec nice -n 7 "$@"`,
	"idle I/O":                `exec ionice -c 3 "$@"`,
	"batch":                   `exec chrt --batch 0 "$@"`,
	"one CPU":                 `exec taskset -c 0 "$@"`,
	"out of memory score":     `exec choom -n 500 -- "$@"`,
	"a session":               `exec setsid -w "$@"`,
	"a group":                 `set -m; "$@"`,
	"descriptors":             `exec 3</dev/null 5>other 9<>other; exec "$@"`,
	"no standard input":       `exec "$@" <&-`,
	"no standard error":       `exec "$@" 2>&-`,
	"an empty environment":    `exec env -i PATH="$PATH" PROBE_NAMESPACES="$PROBE_NAMESPACES" "$@"`,
	"another directory":       `mkdir -p sub && cd sub && exec "$@"`,
	"a directory behind link": `mkdir -p sub && ln -sfn sub link && cd link && exec "$@"`,
	"a removed directory":     `mkdir gone && cd gone && rmdir ../gone && exec "$@"`,
	"activation":              `exec 3</dev/null; export LISTEN_FDS=1 LISTEN_FDNAMES=web LISTEN_PID=$$; exec "$@"`,
	"activation of another":   `exec 3</dev/null; export LISTEN_FDS=1 LISTEN_FDNAMES=web LISTEN_PID=1; exec "$@"`,
	"a unit":                  `export NOTIFY_SOCKET=/run/nowhere INVOCATION_ID=x JOURNAL_STREAM=8:1 WATCHDOG_USEC=1; exec "$@"`,
	"variables of a run":      `export ROOTLESSKIT_STATE_DIR=/x ROOTLESSKIT_PARENT_EUID=7 _ROOTLESSKIT_PIPEFD_UNDOCUMENTED=; exec "$@"`,
	"no TMPDIR":               `unset TMPDIR; exec "$@"`,
	"no runtime directory":    `unset XDG_RUNTIME_DIR HOME USER; exec "$@"`,
	"C locale":                `export LANG=C LC_ALL=C; exec "$@"`,
	"a tracing shell":         `set -x; exec "$@" 2>/dev/null`,
}

// TestWorlds compares what a command sees of how the launcher was started.
func TestWorlds(t *testing.T) {
	for name, script := range worlds {
		for _, flags := range []string{"--net=host", "--net=none --pidns", "--net=gvisor-tap-vsock --detach-netns --copy-up=/etc"} {
			t.Run(name+" "+strings.ReplaceAll(flags, "/", ":"), func(t *testing.T) {
				t.Parallel()
				compare(t, func(t *testing.T, s *subject) { s.seeFrom(t, script, strings.Fields(flags)) })
			})
		}
	}
}

func (s *subject) seeFrom(t *testing.T, script string, flags []string) {
	t.Helper()
	o := s.succeed(func() outcome {
		cmd := s.command(t, append(append([]string{"--state-dir=" + s.stateDir}, flags...), "sh", "-c", look, inBin("probe"), s.dir)...)
		from := exec.CommandContext(t.Context(), "sh", append([]string{"-c", script, "sh"}, cmd.Args...)...)
		from.Dir, from.Env, from.WaitDelay = cmd.Dir, cmd.Env, cmd.WaitDelay
		return finish(t, from)
	})
	if o.code != 0 {
		t.Fatalf("%s: code %d: %s", s.name, o.code, o.stderr)
	}
	s.read(t, o.stdout)
	for key := range s.report {
		if strings.HasPrefix(key, "sysctl.") || strings.HasPrefix(key, "list./") { // TestInside's
			delete(s.report, key)
		}
	}
}

// TestStateDirNames compares where the state directory is, and what is done with
// one that was there before.
func TestStateDirNames(t *testing.T) {
	for name, arg := range map[string]string{
		"none": "", "relative": "--state-dir=sub/state", "with a slash": "--state-dir=$DIR/state/", "with a space": "--state-dir=$DIR/my state",
		"through a link": "--state-dir=$DIR/link/state", "in use before": "--state-dir=$DIR/old", "a file": "--state-dir=$DIR/file", "beneath a file": "--state-dir=$DIR/file/state",
		"not writable": "--state-dir=/nowhere/state", "empty": "--state-dir=", "not readable": "--state-dir=$DIR/closed/state", "a link to a directory": "--state-dir=$DIR/link",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compare(t, func(t *testing.T, s *subject) {
				setUp := exec.Command("sh", "-c", `mkdir sub old old/x closed; ln -s sub link; echo >old/file; echo >old/lock; echo >file; chmod 0 closed`)
				setUp.Dir = s.dir
				finish(t, setUp)
				var args []string
				if arg != "" {
					args = append(args, strings.ReplaceAll(arg, "$DIR", s.dir))
				}
				o := finish(t, s.command(t, append(args, "--net=none", "sh", "-c", `echo "$ROOTLESSKIT_STATE_DIR"; ls -A "$ROOTLESSKIT_STATE_DIR"`)...))
				s.sayOutcome("run", o)
				_ = os.Chmod(s.dir+"/closed", 0o755)
				s.sayDirectory("left", s.dir)
			})
		})
	}
}

// TestTheListIsUsed is the last of the last file: an entry that nothing needs is a difference that
// was forgotten.
func TestTheListIsUsed(t *testing.T) {
	if f := flag.Lookup("test.run"); f != nil && f.Value.String() != "" || t.Failed() {
		t.Skip("not all tests were run")
	}
	for i, d := range meant {
		if !used.entries[i] && !d.sometimes {
			t.Errorf("no test needs: %+v", d)
		}
	}
}
