package kernel

// All lists the features, in the order of docs/kernels.md.
func All() []*Feature {
	return []*Feature{
		UDPReceiveOffload, PidfdGetfd, NetnsCookie, Notifications, TUNSegmentation,
		SyncWakeUp, LandlockTCP, ThreadPidfd, NFTables, IPTables, IPv6, TUN,
	}
}

// The features.
var (
	UDPReceiveOffload = &Feature{
		Name: "UDP_GRO", Since: "5.0", probe: probeUDPGRO,
		Gives:   "several datagrams of a relayed UDP flow in one system call",
		Without: "one by one",
	}
	PidfdGetfd = &Feature{
		Name: "pidfd_getfd", Since: "5.6", probe: probePidfdGetfd,
		Gives:   "native ports",
		Without: "the relay serves the ports of `bypass4netns`",
	}
	NetnsCookie = &Feature{
		Name: "SO_NETNS_COOKIE", Since: "5.14", probe: probeNetnsCookie,
		Gives:   "native ports; finds the namespace of a socket with one call",
		Without: "the relay serves the ports of `bypass4netns`; the namespace is identified by its inode",
	}
	Notifications = &Feature{
		Name: "seccomp notifications that a signal does not interrupt", Since: "5.19", probe: probeNotifications,
		Gives:   "native ports",
		Without: "the relay serves the ports of `bypass4netns`",
	}
	TUNSegmentation = &Feature{
		Name: "UDP segmentation of TAP devices", Since: "6.2", probe: probeTUNSegmentation,
		Gives:   "several datagrams of a UDP flow through `gvisor-tap-vsock` in one frame",
		Without: "one by one",
	}
	SyncWakeUp = &Feature{
		Name: "seccomp notifications with a synchronous wake-up", Since: "6.6",
		Gives:   "`bind` of a native port without a detour through the scheduler",
		Without: "`bind` takes three times as long",
	}
	LandlockTCP = &Feature{
		Name: "Landlock for TCP", Since: "6.7", probe: probeLandlockTCP,
		Gives:   "native ports with `--disable-host-loopback`",
		Without: "with that option, the relay serves the ports of `bypass4netns`",
	}
	ThreadPidfd = &Feature{
		Name: "PIDFD_THREAD", Since: "6.9", probe: probeThreadPidfd,
		Gives:   "native ports for threads that have descriptors of their own",
		Without: "such a thread binds in the namespace",
	}
	NFTables = &Feature{
		Name: "nf_tables", Modules: "nf_tables", probe: probeNFTables,
		Gives:   "the client's address for UDP servers on all addresses, for servers on one address, and behind NAT",
		Without: "the programs `iptables` and `ip6tables` provide this",
	}
	IPTables = &Feature{
		Name: "tables of the older iptables", Modules: "ip_tables iptable_mangle ip6_tables ip6table_mangle", probe: probeIPTables,
		Gives:   "the same without nf_tables",
		Without: "such servers see the namespace's own address; TCP servers, and UDP servers on loopback, still see the client's",
	}
	IPv6 = &Feature{
		Name: "IPv6", Modules: "ipv6", probe: probeIPv6,
		Gives:   "ports and networks of both families",
		Without: "IPv4 only",
	}
	TUN = &Feature{
		Name: "TAP devices", Modules: "tun", probe: probeTUN,
		Gives:   "every network but `host`, `none` and `lxc-user-nic`",
		Without: "an error that says so",
	}
)
