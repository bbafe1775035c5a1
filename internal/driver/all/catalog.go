package all

import "rootlesskit/internal/driver"

// Catalog is what every build knows about all drivers, in the order in which help
// lists them. The rest is in each driver's own package, which is not linked if
// its build tag leaves it out. A test compares the two.
func Catalog() []driver.Known {
	return []driver.Known{
		{Name: "none", Network: true},
		{Name: "builtin",
			Ports: []string{"builtin"},
			Flags: []driver.Flag{sourceIP, sourceIPBackend}},
		{Name: "pasta", Tag: "no_pasta", Summary: "pasta and pesto",
			Network: true, Ports: []string{"implicit", "pesto"}, Meant: "pesto",
			Flags: []driver.Flag{
				{Name: "pasta-binary", Kind: driver.File, Default: "pasta"},
				{Name: "pesto-binary", Kind: driver.File, Default: "pesto"},
				sourceIP, sourceIPBackend,
			}},
		{Name: "slirp4netns", Tag: "no_slirp4netns", Summary: "slirp4netns",
			Network: true, Ports: []string{"slirp4netns"},
			Flags: []driver.Flag{
				{Name: "slirp4netns-binary", Kind: driver.File, Default: "slirp4netns"},
				{Name: "slirp4netns-sandbox", Default: "false"},
				{Name: "slirp4netns-seccomp", Default: "false"},
				sourceIP, sourceIPBackend,
			}},
		{Name: "vpnkit", Tag: "no_vpnkit", Summary: "nothing: vpnkit is retired. Accepted, since packagers pass it",
			Network: true, Retired: "use gvisor-tap-vsock (embedded), slirp4netns or pasta",
			Flags: []driver.Flag{{Name: "vpnkit-binary", Kind: driver.File, Default: "vpnkit", Usage: "accepted for compatibility; vpnkit is retired"}}},
		{Name: "lxc-user-nic", Tag: "no_lxcusernic", Summary: "lxc-user-nic and its DHCP client",
			Network: true,
			Flags: []driver.Flag{
				{Name: "lxc-user-nic-binary", Kind: driver.File},
				{Name: "lxc-user-nic-bridge", Default: "lxcbr0"},
			}},
		{Name: "gvisor-tap-vsock", Tag: "no_gvisortapvsock", Summary: "the embedded network: about a third of the binary",
			Network: true, Ports: []string{"gvisor-tap-vsock"},
			Flags: []driver.Flag{
				{Name: "allow-link-local", Kind: driver.Bool, Hidden: true},
				{Name: "disable-link-local", Kind: driver.Bool},
				sourceIP, sourceIPBackend,
			}},
		{Name: "bypass4netns", Tag: "no_bypass4netns", Summary: "native ports",
			Ports: []string{"bypass4netns"},
			Flags: []driver.Flag{sourceIP, sourceIPBackend, {Name: "bypass4netnsd-socket", Kind: driver.File, Strict: true}}},
	}
}

// The flags of the relay, which several drivers share.
var (
	sourceIP        = driver.Flag{Name: "source-ip-transparent", Kind: driver.Bool, Default: "true"}
	sourceIPBackend = driver.Flag{Name: "source-ip-transparent-backend", Default: "auto"}
)
