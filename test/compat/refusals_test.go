package compat

import (
	"slices"
	"strings"
	"testing"
)

// commandLines are run one after the other; what they print and how they end
// is compared. "$DIR" is that of the run. Arguments are separated by "|".
var commandLines = []string{
	"", "--net=none", "--version", "-v", "--print-semver=major", "--print-semver=minor", "--print-semver=x", "--print-semver=", "--print-semver=x|--net=foo",
	"--net=foo|true", "--net=|true", "--net=HOST|true", "--net=vpnkit|true", "--net=lxc-user-nic|--lxc-user-nic-binary=/nowhere|true", "--net=pasta|--pasta-binary=/nowhere/pasta|true",
	"--net=slirp4netns|--slirp4netns-binary=nosuchprogram|true", "--net=slirp4netns|--slirp4netns-binary=/etc/passwd|true", "--net=slirp4netns|--slirp4netns-binary=/bin/false|true",
	"--net=pasta|--port-driver=pesto|--pesto-binary=nosuchprogram|true", "--net=pasta|--pasta-binary=/bin/false|true", "--net=pasta|--pasta-binary=/bin/true|true",
	"--net=slirp4netns|--slirp4netns-sandbox=x|true", "--net=slirp4netns|--slirp4netns-seccomp=x|true", "--slirp4netns-sandbox=x|true", "--net=slirp4netns|--slirp4netns-sandbox=true|--detach-netns|true",
	"--port-driver=foo|true", "--port-driver=builtin|true", "--port-driver=|true", "--net=gvisor-tap-vsock|--port-driver=slirp4netns|true", "--net=gvisor-tap-vsock|--port-driver=implicit|true",
	"--net=gvisor-tap-vsock|--port-driver=pesto|true", "--net=gvisor-tap-vsock|--port-driver=pasta|true", "--net=none|--port-driver=gvisor-tap-vsock|true", "--net=slirp4netns|--port-driver=gvisor-tap-vsock|true",
	"--net=pasta|--port-driver=builtin|true", "--net=pasta|--port-driver=slirp4netns|true", "--net=none|--port-driver=slirp4netns|true", "--net=none|--port-driver=pesto|true", "--net=slirp4netns|--port-driver=implicit|true",
	"--net=gvisor-tap-vsock|--cidr=10.0.2.100/24|true", "--net=gvisor-tap-vsock|--cidr=x|true", "--net=gvisor-tap-vsock|--cidr=10.0.2.0|true", "--net=gvisor-tap-vsock|--cidr=10.0.2.0/31|true", "--net=gvisor-tap-vsock|--cidr=fd00::/64|true",
	"--net=slirp4netns|--cidr=10.0.2.0/30|true", "--net=slirp4netns|--cidr=x|true", "--net=pasta|--cidr=10.0.2.100/24|true", "--net=none|--cidr=10.0.2.0/24|true", "--cidr=10.0.2.0/24|true", "--cidr=x|true",
	"--net=lxc-user-nic|--cidr=10.0.2.0/24|true", "--net=gvisor-tap-vsock|--mtu=70000|true", "--mtu=-5|true", "--mtu=x|true", "--mtu=|true", "--mtu=65522|true", "--mtu=65521|true", "--net=none|--mtu=1500|true",
	"--net=gvisor-tap-vsock|--ipv6|true", "--ifname=foo|true", "--net=none|--ifname=foo|true", "--net=gvisor-tap-vsock|--ifname=a/b|true", "--net=gvisor-tap-vsock|--ifname=a b|true", "--net=gvisor-tap-vsock|--ifname=averyveryverylongname|true", "--net=gvisor-tap-vsock|--ifname=lo|true",
	"-p|127.0.0.1:8080:80/tcp|true", "--net=none|--port-driver=builtin|-p|127.0.0.1:8080:80|true", "--net=none|--port-driver=builtin|-p|foo:8080:80/tcp|true", "--net=none|--port-driver=builtin|-p|8080:80/tcp|true",
	"--net=none|--port-driver=builtin|-p|/tcp|true", "--net=none|--port-driver=builtin|-p|127.0.0.1:x:80/tcp|true", "--net=none|--port-driver=builtin|-p|127.0.0.1:99999:80/tcp|true", "--net=none|--port-driver=builtin|-p|127.0.0.1:8080:80/icmp|true",
	"--net=none|--port-driver=builtin|-p|127.0.0.1:8080:80/sctp|true", "--net=none|--port-driver=builtin|-p|127.0.0.1:80:80/tcp|true", "--net=none|--port-driver=builtin|-p|192.0.2.99:8080:80/tcp|true",
	"--net=none|--port-driver=builtin|-p|127.0.0.1:18080:80/tcp,127.0.0.1:18080:80/tcp|true", "--net=none|--port-driver=builtin|-p||true", "--net=none|--port-driver=builtin|--publish=127.0.0.1:18081:80/tcp|-p=127.0.0.1:18082:80/udp|true",
	"--net=none|--port-driver=builtin|-p|[::1]:18083:[::1]:80/tcp|true", "--net=none|--port-driver=builtin|-p|::1:18083:80/tcp|true", "--net=none|--port-driver=builtin|-p|127.0.0.1:18084:10.1.2.3:80/tcp|true",
	"--net=none|--port-driver=builtin|--source-ip-transparent-backend=foo|true", "--source-ip-transparent-backend=foo|true", "--net=none|--port-driver=builtin|--source-ip-transparent-backend=iptables|true",
	"--propagation=rshared|--copy-up=/etc|true", "--propagation=shared|--copy-up=/etc|true", "--propagation=foo|true", "--propagation=|true", "--copy-up=/tmp|true", "--copy-up=/nowhere|true", "--copy-up=etc|true", "--copy-up=/etc/passwd|true", "--copy-up=|true", "--copy-up=/|true",
	"--copy-up=/root|true", "--copy-up=/proc|true", "--copy-up=/etc/|true", "--copy-up=/etc|--copy-up=/etc|true", "--copy-up-mode=foo|true", "--copy-up-mode=foo|--copy-up=/etc|true", "--reaper=true|true", "--reaper=foo|true", "--reaper=|true", "--pidns|--reaper=true|true",
	"--evacuate-cgroup2=foo|true", "--evacuate-cgroup2=foo|--cgroupns|true", "--evacuate-cgroup2=foo|--pidns|true", "--evacuate-cgroup2=foo|--cgroupns|--pidns|true", "--subid-source=foo|true", "--subid-source=dynamic|true", "--subid-source=|true",
	"--nosuchflag|true", "-nosuchflag|true", "--net", "--pidns=maybe|true", "--pidns=false|true", "--pidns=1|true", "-net=none|true", "--net|none|true", "--|true", "--net=none|--|true", "--net=foo|--net=none|true", "-x|true", "-|true", "---net=none|true", "--debug=x|true",
	"true", "false", "sh|-c|exit 7", "sh|-c|exit 300", "sh|-c|kill -9 $$", "sh|-c|kill -TERM $$", "sh|-c|kill -HUP $$", "sh|-c|kill -SEGV $$", "nosuchcmd", "/nowhere/cmd", "./nosuchcmd", "/etc/passwd", "/etc", "/", "", "|", "--pidns|sh|-c|exit 7", "--pidns|sh|-c|kill -9 $$",
	"--pidns|nosuchcmd", "--pidns|--reaper=false|sh|-c|exit 7", "--pidns|--reaper=false|sh|-c|kill -9 $$", "--net=gvisor-tap-vsock|--disable-host-loopback|--copy-up=/etc|sh|-c|exit 7", "--net=none|--detach-netns|sh|-c|exit 7",
	"--net=slirp4netns|--disable-host-loopback|--copy-up=/etc|sh|-c|exit 7", "--net=pasta|--disable-host-loopback|--copy-up=/etc|sh|-c|exit 7",
	"echo|-n|--net=none", "echo|--version", "sh|-c|echo out; echo err >&2", "env|-u|PATH|/usr/bin/id|-u", "id", "whoami", "sh|-c|exec 2>&1; echo $0 $#", "cat", "tty", "stty", "printf|%s|a,b",
}

// TestCommandLines compares exit codes and what is printed, refusals above all.
func TestCommandLines(t *testing.T) {
	for _, line := range commandLines {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			compare(t, func(t *testing.T, s *subject) {
				var args []string
				if line != "" {
					args = strings.Split(line, "|")
				}
				cmd := s.command(t, args...)
				s.sayOutcome("run", finish(t, cmd))
			})
		})
	}
}

// TestStandInTheWay compares how a run ends that cannot have what it needs.
func TestStandInTheWay(t *testing.T) {
	for name, script := range map[string]string{
		"no new privileges":       `exec setpriv --no-new-privs "$@"`,
		"no newuidmap":            `mkdir bin; for p in true sh ip; do ln -s "$(command -v $p)" bin/; done; PATH=$PWD/bin exec "$@"`,
		"root of a namespace":     `exec unshare --user --map-root-user "$@"`,
		"no namespaces left":      `exec unshare --user --map-root-user sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"' sh "$@"`,
		"no network namespaces":   `exec unshare --user --map-root-user sh -c 'echo 0 >/proc/sys/user/max_net_namespaces && exec "$@"' sh "$@"`,
		"standard output is shut": `exec "$@" >&-`,
		"no temporary directory":  `export TMPDIR=$PWD/nowhere; exec "$@"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compare(t, func(t *testing.T, s *subject) {
				cmd := s.command(t, "--net=none", "true")
				cmd.Args = append([]string{"sh", "-c", script, "sh"}, cmd.Args...)
				cmd.Path = "/bin/sh"
				s.sayOutcome("run", finish(t, cmd))
			})
		})
	}
}

// ctlLines are for one run, in this order.
var ctlLines = []string{
	"list-ports", "list-ports|--json", "info", "add-ports|127.0.0.1:$PORT:80/tcp", "add-ports|127.0.0.1:$PORT:80/tcp", "add-ports|--json|127.0.0.1:$PORT:80/udp", "add-ports|127.0.0.1:$PORT:81/tcp4", "list-ports", "list-ports|--json",
	"add-ports|[::1]:$PORT:[::1]:80/tcp6", "add-ports|nonsense", "add-ports|127.0.0.1:$THIRD:80/tcp|nonsense", "add-ports|127.0.0.1:$THIRD:80/tcp|127.0.0.1:$THIRD:80/tcp", "add-ports", "add-ports|127.0.0.1:80:80/tcp", "add-ports|127.0.0.1:$THIRD:80/sctp",
	"add-ports|:$THIRD:80/udp", "add-ports|0.0.0.0:$THIRD:127.0.0.1:80/udp4", "list-ports", "remove-ports", "remove-ports|1", "remove-ports|1", "remove-ports|abc", "remove-ports|2|777|3", "remove-ports|-1", "list-ports", "list-ports|extra", "info|extra",
	"nosuchcommand", "", "--nosuchflag", "list-ports|--nosuchflag", "--version", "info|--nosuchflag", "--debug|list-ports", "remove-ports|3|4|5|6|7", "list-ports|--json", "list-ports|--json=false", "add-ports|--json=x|127.0.0.1:$THIRD:80/tcp",
}

// TestControl compares rootlessctl.
func TestControl(t *testing.T) {
	for _, flags := range []string{"--net=none --port-driver=builtin", "--net=gvisor-tap-vsock --port-driver=builtin", "--net=host", "--net=none", "--net=slirp4netns --port-driver=builtin --detach-netns"} {
		t.Run(flags, func(t *testing.T) {
			t.Parallel()
			compare(t, func(t *testing.T, s *subject) { s.control(t, strings.Fields(flags)) })
		})
	}
}

func (s *subject) control(t *testing.T, flags []string) {
	ports := s.namePorts(t, "$PORT", "$THIRD")
	s.start(t, flags...)
	s.nameChild(t)
	for i, line := range ctlLines {
		var args []string
		if line != "" {
			args = strings.Split(ports.Replace(line), "|")
		}
		key := strings.Join([]string{string(rune('A'+i%26)) + string(rune('a'+i/26)), line}, " ")
		o := s.ctl(t, append([]string{"--socket=" + s.socket()}, args...)...)
		lines := strings.Split(o.stdout, "\n")
		if strings.HasPrefix(lines[0], "ID ") {
			slices.Sort(lines[1:]) // they are in no order, in the original
			o.stdout = strings.Join(lines, "\n")
		}
		s.sayOutcome(key, o)
	}
	s.sayOutcome("no socket given", s.ctl(t, "info"))
	s.sayOutcome("no such socket", s.ctl(t, "--socket="+s.dir+"/nowhere", "list-ports"))
	s.sayOutcome("no socket", s.ctl(t, "--socket=/etc/passwd", "list-ports"))
}
