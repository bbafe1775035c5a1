package main

import (
	"bytes"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/driver/all"
)

// upstreamFlags are those that upstream's v3.3.0 prints for --help. With a value
// behind "=", which is the default there, the flag takes one.
var upstreamFlags = strings.Fields(`
	--debug --print-semver= --help -h --version -v
	--copy-up= --copy-up-mode=tmpfs+symlink --propagation=rprivate
	--net=host --mtu=0 --cidr= --ifname= --disable-host-loopback --ipv6 --detach-netns
	--lxc-user-nic-binary= --lxc-user-nic-bridge=lxcbr0
	--pasta-binary=pasta --pesto-binary=pesto
	--slirp4netns-binary=slirp4netns --slirp4netns-sandbox=false --slirp4netns-seccomp=false
	--vpnkit-binary=vpnkit
	--port-driver=none --publish= -p= --source-ip-transparent --source-ip-transparent-backend=auto
	--pidns --cgroupns --utsns --ipcns --reaper=auto --evacuate-cgroup2=
	--state-dir= --subid-source=auto`)

// TestUpstreamFlags: every flag of upstream's is accepted in every form, and
// has the same default. --print-semver ends the run before anything is done.
func TestUpstreamFlags(t *testing.T) {
	for _, f := range upstreamFlags {
		name, value, takes := strings.Cut(f, "=")
		bare := strings.TrimLeft(name, "-")
		forms := [][]string{{name}, {"-" + bare}, {name + "=true"}, {name + "=false"}}
		switch {
		case takes && value == "":
			forms = [][]string{{name, "major"}, {"-" + bare, "major"}, {name + "=major"}, {"-" + bare + "=major"}}
		case takes:
			forms = [][]string{{name, value}, {"-" + bare, value}, {name + "=" + value}, {"-" + bare + "=" + value}}
		}
		for _, form := range forms {
			app, out := testApp()
			args := append([]string{"rootlesskit", "--print-semver=major"}, form...)
			if code, err := app.run(t.Context(), args); err != nil || code != 0 || out.Len() == 0 {
				t.Errorf("%v: code %d, %v, printed %q", form, code, err, out)
			}
		}
		if takes && value != "" && defaultOf(t, bare) != value {
			t.Errorf("the default of %s is %q, upstream's is %q", name, defaultOf(t, bare), value)
		}
	}
}

func testApp() (*app, *bytes.Buffer) {
	out := &bytes.Buffer{}
	app := newApp(all.Registry(), nil)
	app.stdout = out
	app.newLog = func(bool) *slog.Logger { return slog.New(slog.DiscardHandler) }
	return app, out
}

func defaultOf(t *testing.T, name string) string {
	t.Helper()
	for _, f := range flags(all.Registry()) {
		if doc, ok := f.(cli.DocGenerationFlag); ok && f.Names()[0] == name {
			return strings.Trim(doc.GetValue(), `"`)
		}
	}
	t.Errorf("no flag --%s", name)
	return ""
}

// TestFlagsAreDocumented: --help and the man page have every flag, and a text
// for it.
func TestFlagsAreDocumented(t *testing.T) {
	app, help := testApp()
	if _, err := app.run(t.Context(), []string{"rootlesskit", "--help"}); err != nil {
		t.Fatal(err)
	}
	man, err := os.ReadFile("../../docs/man/rootlesskit.1")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.ReplaceAll(string(man), `\-`, "-")
	for _, f := range append(flags(all.Registry()), cli.HelpFlag, cli.VersionFlag) {
		if doc, ok := f.(cli.DocGenerationFlag); !ok || doc.GetUsage() == "" {
			t.Errorf("--%s has no text", f.Names()[0])
		}
		v, ok := f.(cli.VisibleFlag)
		hidden := ok && !v.IsVisible() // accepted for old command lines only
		for _, name := range f.Names() {
			dashed := "--" + name
			if len(name) == 1 {
				dashed = "-" + name
			}
			word := `(^|[ ,])` + dashed + `($|[ ,=])`
			if regexp.MustCompile(`(?m)`+word).MatchString(help.String()) == hidden {
				t.Errorf("--help and %s, which is hidden: %v", dashed, hidden)
			}
			if strings.Contains(page, `\fB`+dashed+`\fR`) == hidden {
				t.Errorf("the man page and %s, which is hidden: %v", dashed, hidden)
			}
		}
	}
}
