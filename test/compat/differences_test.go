package compat

// meant are the differences that are there on purpose, by what they are about.
// TestTheListIsUsed fails on an entry that no test needs any more.
var meant = func() (all []difference) {
	for _, part := range [][]difference{meantInside, meantInNetworks, meantInStateDirectory, meantInAPI, meantInRawHTTP, meantInSockets, meantInTexts, meantInControl} {
		all = append(all, part...)
	}
	return all
}()

var meantInside = []difference{
	{key: `prctl\.pdeathsig`, upstream: `0 ok`, here: `9 ok`, reason: "the command ends with the child; the original's does not, now and then", sometimes: true},
	{key: `env\._ROOTLESSKIT_REEXEC_COUNT`, here: absent, reason: "a variable that the original leaves behind by mistake"},
	{key: `fd\.\d+`, here: absent, upstream: `pipe:.*|/dev/net/tun.*`, reason: "the command inherits what the caller gave it, and nothing of ours: the original leaks a pipe, and its TAP device"},
	{key: `(list|state)\..*/state/api\.sock`, upstream: `Srwx.*`, here: `Srw-------.*`, reason: "sockets in the file system are for their owner alone"},
	{test: `Worlds/descriptors.*`, key: `fd\.\d+`, upstream: absent, here: `/dev/null.*`, reason: "the command inherits what the caller gave it: the original loses a descriptor"},
	{test: `Worlds/variables.*`, key: `env\._ROOTLESSKIT_PIPEFD_UNDOCUMENTED`, upstream: absent, reason: "the command inherits the caller's variables"},
	{test: `Worlds/ignored_signals.*`, key: `status\.SigIgn`, upstream: `[0-9a-f]{10}200003`, here: `[0-9a-f]{10}000003`, reason: "SIGTTOU is passed on, which one that is ignored cannot be"},
	{key: `mount\./sys#\d+\.(flags|what)`, here: `rw,nosuid,nodev,noexec,relatime|type sysfs source sysfs root /`, reason: "a fresh /sys has the flags and the source that every host gives it"},
	{key: `mount\./proc#\d+\.(flags|what)`, here: `rw,nosuid,nodev,noexec,relatime|type proc source proc root /`, reason: "a fresh /proc has the flags and the source that every host gives it"},
	{key: `mount\..*\.(what|options)`, upstream: `type tmpfs source none root /|rw,uid=\d+,gid=\d+`, here: `type tmpfs source tmpfs root /|rw,mode=755,uid=\d+,gid=\d+`,
		reason: "a directory that is copied up keeps its mode: the original makes it writable for all users inside"},
	{key: `list\./(etc|run|var|opt|var/run|var/lib|etc/ssl|run/\.ro.*)`, upstream: `.*dtrwxrwxrwx 0:0`, here: `.*drwxr-xr-x 0:0`, reason: "a directory that is copied up keeps its mode"},
}

var meantInNetworks = []difference{
	{key: `(net|netns)\.ip -o addr: 2: (tap0|eth7) inet .*`, reason: "the address has a broadcast address, as one by DHCP has"},
	{key: `(net|netns)\.ip -o -d link: 2: (tap0|eth7): .*`, reason: "the TAP of a helper outlives it, so that it can be started again; the embedded network's has virtio headers, for segmentation offload"},
	{test: `Inside/--net=(slirp4netns|pasta)_--ipv6.*`, key: `net\.ip .*`, reason: "with --ipv6 an address and a route are there when the command starts; the original leaves them to router advertisements"},
	{test: `Inside/--net=(slirp4netns|pasta)_--ipv6.*`, key: `sysctl\./proc/sys/net/ipv6/conf/tap0/accept_ra`, upstream: `.* 1`, here: `.* 0`, reason: "an address that a router advertises as well would be the source of UDP answers"},
	{test: `.*--net=gvisor-tap-vsock.*`, key: `(net|netns)\.ip .*route.*: default via \S+ dev \S+.*`, reason: "connections through the embedded network are not paced (congctl reno): the host's sockets control the way beyond"},
	{test: `Inside/--net=host_--detach-netns.*`, key: `netns\.ip .*`, reason: "the loopback of a detached namespace is up, whatever the network"},
	{test: `.*--net=gvisor-tap-vsock.*`, key: `stderr|run\.stderr`, upstream: `(?s).*cannot receive packets from.*`, reason: "the end of a run is no error"},
}

var meantInStateDirectory = []difference{
	{key: `(list|state)\.\$DIR/state/\.(net|net/.*|bp.*|pasta\.sock|s4nn\.sock)`, reason: "files for an implementation's own use"},
	{key: `(list|state)\.\$DIR/state/gvisortapvsock.*`, here: absent, reason: "the embedded network needs no socket in the file system"},
	{key: `state\.\$DIR/state/netns`, upstream: `-r--------.*`, here: `-r--r--r--.*`, reason: "the file is a place to mount on; inside it has the mode of the namespace"},
	{test: `Worlds/umask.*`, key: `list\..*/state/(child_pid|hosts|resolv\.conf)`, upstream: `-r.-------.*`, here: `-r.-r--r--.*`, reason: "clients read these files, whatever the umask"},
	{test: `StateDirNames/(none|empty)`, key: `run\.stdout`, here: `/run/user/.*`, reason: "a directory for the run is made in $XDG_RUNTIME_DIR, where no cleaner of temporary files comes"},
	{test: `StandInTheWay/no_temporary_directory`, key: `run\.(code|stderr)`, here: `0|`, reason: "follows from the above"},
	{test: `StateDirNames/a_link.*`, key: `left\..*`, reason: "what a link leads to is removed, and the link is left; the original does the opposite"},
	{test: `StateDirNames/(a|beneath_a)_file`, key: `run\.stderr`, here: `.*: not a directory`, reason: "the same, of another system call"},
	{key: `child's namespace\.net`, upstream: `false`, here: `true`, reason: "with --detach-netns the child stays in the caller's network; one of the original's threads is left in the other", sometimes: true},
	{key: `code after SIGTERM`, upstream: `1`, here: `255`, reason: "a command that was ended by a signal gives 255; the original gives 1 now and then", sometimes: true},
}
