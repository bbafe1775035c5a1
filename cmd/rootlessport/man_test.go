package main

import (
	"flag"
	"testing"

	"github.com/urfave/cli/v3"

	"rootlesskit/api"
	"rootlesskit/internal/manpage"
)

var update = flag.Bool("update", false, "rewrite the man page")

const description = `Podman starts this program for every rootless container that has published ports and is on a bridge network, or on slirp4netns with port_handler=rootlesskit. It relays connections and datagrams between the host and the container, so that the server sees the address and port of each client. Podman's own program of this name shows the server an address of the container instead.

It takes no arguments, and is not meant to be started by hand. Podman writes a configuration to its standard input.

Podman runs the program of this name in the first directory of helper_binaries_dir that has one, see containers.conf(5).`

var manSections = []manpage.Section{
	{Title: "EXIT STATUS", Terms: []manpage.Term{
		{Term: "0", Text: "The container has ended."},
		{Term: "1", Text: "A port could not be published, so none was. The reason is on standard output; Podman prints it."},
	}},
	{Title: "FILES", Terms: []manpage.Term{
		{Term: "~/.config/containers/containers.conf", Text: "The file in which a user turns it on."},
		{Term: "TMPDIR/rp/CONTAINER", Text: "A socket through which Podman reports that the container's address has changed. TMPDIR is Podman's own temporary directory."},
	}},
	{Title: "DIAGNOSTICS", Text: "After its start, the program logs to syslog, under the name rootlessport, what it cannot do, such as showing UDP clients if the kernel has no packet filter. It reports each problem once."},
	{Title: "EXAMPLES", Text: `Turn it on for one user and for containers that are started from then on:

  [engine]
  helper_binaries_dir = ["/usr/local/libexec/rootlesskit", "/usr/libexec/podman", "/usr/lib/podman"]

Check that it is in use:

  readlink /proc/$(pgrep -n rootlessport)/exe`},
	{Title: "SEE ALSO", Text: "podman(1), podman-run(1), containers.conf(5), rootlesskit(1)"},
}

func TestManPageIsCurrent(t *testing.T) {
	page := manpage.Render(&cli.Command{
		Name: "rootlessport", Usage: "publish the ports of rootless Podman's containers", Version: api.Version,
		Description: description, UsageText: "rootlessport", HideHelp: true, HideVersion: true,
	}, manSections...)
	manpage.Check(t, "../../docs/man/rootlessport.1", page, *update)
}
