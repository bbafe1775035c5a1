package main

import (
	"flag"
	"testing"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/completion"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/all"
	"rootlesskit/internal/manpage"
)

var update = flag.Bool("update", false, "rewrite the man page and the completions")

func TestCompletions(t *testing.T) {
	completion.Check(t, "../../contrib/completions", func() *cli.Command { return newApp(everyDriver(t), nil).cli() }, *update)
}

func TestManPage(t *testing.T) {
	page := manpage.Render(newApp(everyDriver(t), nil).cli(), manSections...)
	manpage.Check(t, "../../docs/man/rootlesskit.1", page, *update)
}

// everyDriver has all drivers: what is written for users is of a build that leaves
// none out.
func everyDriver(t *testing.T) *driver.Registry {
	t.Helper()
	reg := all.Registry()
	for known := range reg.Omitted {
		if known.Retired == "" {
			t.Skipf("this build leaves out %s", known.Name)
		}
	}
	return reg
}

// manSections is what the page says beyond the flags.
var manSections = []manpage.Section{
	{
		Title: "EXIT STATUS",
		Terms: []manpage.Term{
			{Term: "the command's", Text: "The command ran and ended."},
			{Term: "255", Text: "The command was killed by a signal."},
			{Term: "1", Text: "The command was not run, because of wrong options, a failed set-up, or a command that cannot be executed. The reason is on standard error."},
		},
	},
	{
		Title: "ENVIRONMENT",
		Text:  "The environment of the command has these variables:",
		Terms: []manpage.Term{
			{Term: "ROOTLESSKIT_STATE_DIR", Text: "The state directory."},
			{Term: "ROOTLESSKIT_PARENT_EUID", Text: "The effective user ID of the launcher, in decimal."},
			{Term: "ROOTLESSKIT_PARENT_EGID", Text: "The effective group ID of the launcher, in decimal."},
			{Term: "LISTEN_PID", Text: "With systemd's socket activation, the command's own process ID, if it was the launcher's. See sd_listen_fds(3). Sockets that serve published ports are not passed on, and are not counted in LISTEN_FDS and LISTEN_FDNAMES."},
			{Term: "NOTIFY_SOCKET", Text: "Unchanged; unset with --sdnotify=launcher. See sd_notify(3)."},
		},
	},
	{
		Title: "FILES",
		Text:  "In the state directory:",
		Terms: []manpage.Term{
			{Term: "lock", Text: "Locked by flock(2) while the launcher runs."},
			{Term: "child_pid", Text: "The process ID of the child, in decimal without a newline; for nsenter(1)."},
			{Term: "api.sock", Text: "The socket of the REST API, see rootlessctl(1). It appears before the command starts."},
			{Term: "netns", Text: "With --detach-netns, the network namespace, as seen from inside the child's mount namespace."},
			{Term: "resolv.conf, hosts", Text: "Mounted over the files of /etc inside, unless the network namespace is detached."},
		},
	},
	{
		Title: "SEE ALSO",
		Text:  "rootlessctl(1), user_namespaces(7), subuid(5), newuidmap(1), nsenter(1)",
	},
}
