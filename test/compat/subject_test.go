package compat

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// subject is one of the two implementations in one run, with a directory of its
// own, and what was found.
type subject struct {
	name     string // "upstream" or "here"
	dir      string // for the run; replaced by $DIR in the report
	stateDir string
	ended    chan struct{} // closed when the launcher in the background has ended
	report   report
	replace  []string // pairs for strings.NewReplacer, in what is said
}

func newSubject(t *testing.T, name string) *subject {
	dir, err := os.MkdirTemp("", "compat")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &subject{name: name, dir: dir, stateDir: filepath.Join(dir, "state"), report: report{}}
	s.replace = []string{dir, "$DIR", inBin(name), "$BIN", inBin("probe"), "$PROBE"}
	return s
}

func (s *subject) bin(name string) string { return filepath.Join(inBin(s.name), name) }

// say adds to the report what may be compared.
func (s *subject) say(key, value string) {
	if counters.MatchString(key) {
		value = number.ReplaceAllString(value, "$$N")
	}
	s.report[s.normalise(key)] = s.normalise(value)
}

// counters are keys whose numbers are those of the machine in a moment.
var (
	counters = regexp.MustCompile(`^sysctl./proc/sys/(fs/(dentry-state|file-nr|inode-nr|inode-state|quota/syncs)|` +
		`kernel/(ns_last_pid|random/entropy_avail|pty/nr))$|^list./proc/(self|thread-self)$|^file.state/child_pid$`)
	number = regexp.MustCompile(`\d+`)
)

func (s *subject) saidf(key, format string, args ...any) { s.say(key, fmt.Sprintf(format, args...)) }

// varying is what differs from run to run, and stands for itself.
var varying = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`time="[^"]*"`), `time="$$TIME"`},
	{regexp.MustCompile(`/\.ro\d+`), "/.ro$$N"},
	{regexp.MustCompile(`rootlesskit\d{5,}`), "rootlesskit$$N"},
	{regexp.MustCompile(`_ROOTLESSKIT_REEXEC_COUNT_\d+_\d+`), "_ROOTLESSKIT_REEXEC_COUNT"},
	{regexp.MustCompile(`\bfe80::[0-9a-f:]+`), "$$LINKLOCAL"},
	{regexp.MustCompile(`\b([0-9a-f]{2}:){5}[0-9a-f]{2} brd`), "$$MAC brd"},
	{regexp.MustCompile(`\b(pipe|socket|net|mnt|user|ipc|uts|cgroup|pid):\[\d+\]`), "$1:[$$N]"},
	{regexp.MustCompile(`valid_lft \d+sec preferred_lft \d+sec`), "valid_lft $$N preferred_lft $$N"},
	{regexp.MustCompile(`expires \d+sec`), "expires $$N"},
	{regexp.MustCompile(`pid (= )?\d+`), "pid $1$$PID"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "$$UUID"},
	{regexp.MustCompile(`(?m)^Date: .*$`), "Date: $$DATE"},
}

func (s *subject) normalise(text string) string {
	text = strings.NewReplacer(s.replace...).Replace(text)
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.by)
	}
	return text
}

// environ is what a run is started with.
func (s *subject) environ(more ...string) []string {
	return append([]string{
		"PATH=" + inBin(s.name) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + os.Getenv("HOME"), "USER=" + os.Getenv("USER"), "XDG_RUNTIME_DIR=" + os.Getenv("XDG_RUNTIME_DIR"), "LANG=C.UTF-8",
		"TMPDIR=" + s.dir, "EMPTY=", "odd.name=a=b\nc",
		"PROBE_NAMESPACES=" + callersNamespaces(), "PROBE_GROUP_FILE=" + inBin("group-file"),
	}, more...)
}

// callersNamespaces are those of the test, as links of /proc name them.
var callersNamespaces = sync.OnceValue(func() string {
	var links []string
	names, _ := filepath.Glob("/proc/self/ns/*")
	for _, name := range names {
		link, _ := os.Readlink(name)
		links = append(links, link)
	}
	return strings.Join(links, " ")
})

// command is the launcher with flags and a command, in $DIR.
func (s *subject) command(t *testing.T, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), s.bin("rootlesskit"), args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = s.dir, s.environ(), 10*time.Second
	return cmd
}

// outcome is what a finished program left.
type outcome struct {
	stdout, stderr string
	code           int
}

// finish runs a program to its end. One that does not end is killed, which its
// code tells: the original hangs where its child refuses to start.
func finish(t *testing.T, cmd *exec.Cmd) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v: %s", cmd.Args, err, &stderr)
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// sayOutcome adds to the report how a program ended and what it printed.
func (s *subject) sayOutcome(key string, o outcome) {
	s.saidf(key+".code", "%d", o.code)
	s.say(key+".stdout", o.stdout)
	s.say(key+".stderr", strings.Join(messages(o.stderr), "\n"))
}

// messages are the lines of standard error without the decoration of the
// logs, and without warnings, which are nobody's interface.
func messages(stderr string) (lines []string) {
	for _, line := range strings.Split(strings.TrimRight(stderr, "\n"), "\n") {
		if !logged.MatchString(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

var logged = regexp.MustCompile(`^(time=\S+ )?level=(warning|info|debug|WARN|INFO|DEBUG)|^\[rootlesskit:(parent|child )\] (warning|info|debug):`)
