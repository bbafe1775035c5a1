# fish completion for rootlesskit, generated from its options

function __rootlesskit_in_options --description 'no command was given so far'
    set -l tokens (commandline -opc)
    set -e tokens[1]
    while set -q tokens[1]
        switch $tokens[1]
            case --print-semver --copy-up --copy-up-mode --propagation --net --mtu --cidr --ifname --port-driver --publish -p --source-ip-transparent-backend --pasta-binary --pesto-binary --slirp4netns-binary --slirp4netns-sandbox --slirp4netns-seccomp --vpnkit-binary --lxc-user-nic-binary --lxc-user-nic-bridge --bypass4netnsd-socket --reaper --sdnotify --evacuate-cgroup2 --state-dir --subid-source
                set -e tokens[1]
            case '-*'
            case '*'
                return 1
        end
        set -e tokens[1]
    end
end

complete -c rootlesskit -f
complete -c rootlesskit -n __rootlesskit_in_options -l check -d 'check whether this host can do a run with these options, print each problem with its fix, and exit'
complete -c rootlesskit -n __rootlesskit_in_options -l debug -d 'log debug messages'
complete -c rootlesskit -n __rootlesskit_in_options -l json -d 'with --check, print JSON'
complete -c rootlesskit -n __rootlesskit_in_options -l print-semver -x -a 'major minor patch' -d 'print a component of the version as a decimal integer and exit'
complete -c rootlesskit -n __rootlesskit_in_options -l copy-up -x -a '(__fish_complete_directories)' -d 'make the directory DIR writable by mounting a tmpfs with symlinks to its contents'
complete -c rootlesskit -n __rootlesskit_in_options -l copy-up-mode -x -a 'tmpfs+symlink' -d 'MODE of --copy-up'
complete -c rootlesskit -n __rootlesskit_in_options -l propagation -x -a 'private rprivate shared rshared slave rslave' -d 'mount propagation MODE of /'
complete -c rootlesskit -n __rootlesskit_in_options -l net -x -a 'host auto none pasta slirp4netns lxc-user-nic gvisor-tap-vsock' -d 'network DRIVER'
complete -c rootlesskit -n __rootlesskit_in_options -l mtu -x -d 'MTU in BYTES, at most 65521'
complete -c rootlesskit -n __rootlesskit_in_options -l cidr -x -d 'NETWORK inside, for pasta, slirp4netns and gvisor-tap-vsock'
complete -c rootlesskit -n __rootlesskit_in_options -l ifname -x -d 'NAME of the network interface'
complete -c rootlesskit -n __rootlesskit_in_options -l disable-host-loopback -d 'prohibit connections from inside to 127.0.0.1 of the host'
complete -c rootlesskit -n __rootlesskit_in_options -l ipv6 -d 'give the network IPv6'
complete -c rootlesskit -n __rootlesskit_in_options -l detach-netns -d 'leave the command in the host\'s network namespace'
complete -c rootlesskit -n __rootlesskit_in_options -l port-driver -x -a 'none auto builtin implicit pesto slirp4netns gvisor-tap-vsock bypass4netns' -d 'port DRIVER for a network other than host'
complete -c rootlesskit -n __rootlesskit_in_options -l publish -s p -x -d 'publish a port'
complete -c rootlesskit -n __rootlesskit_in_options -l source-ip-transparent -d 'show the command the real address of clients'
complete -c rootlesskit -n __rootlesskit_in_options -l source-ip-transparent-backend -x -a 'auto nft iptables' -d 'firewall used for --source-ip-transparent'
complete -c rootlesskit -n __rootlesskit_in_options -l pasta-binary -r -F -d 'path of the pasta binary'
complete -c rootlesskit -n __rootlesskit_in_options -l pesto-binary -r -F -d 'path of the pesto binary for --port-driver=pesto'
complete -c rootlesskit -n __rootlesskit_in_options -l slirp4netns-binary -r -F -d 'path of the slirp4netns binary'
complete -c rootlesskit -n __rootlesskit_in_options -l slirp4netns-sandbox -x -a 'auto true false' -d 'enable slirp4netns\'s sandbox'
complete -c rootlesskit -n __rootlesskit_in_options -l slirp4netns-seccomp -x -a 'auto true false' -d 'enable slirp4netns\'s seccomp filter'
complete -c rootlesskit -n __rootlesskit_in_options -l vpnkit-binary -r -F -d 'accepted for compatibility'
complete -c rootlesskit -n __rootlesskit_in_options -l lxc-user-nic-binary -r -F -d 'path of the lxc-user-nic binary'
complete -c rootlesskit -n __rootlesskit_in_options -l lxc-user-nic-bridge -x -d 'bridge that lxc-user-nic attaches to'
complete -c rootlesskit -n __rootlesskit_in_options -l disable-link-local -d 'prohibit connections from inside to link-local addresses'
complete -c rootlesskit -n __rootlesskit_in_options -l bypass4netnsd-socket -r -F -d 'serve the API of bypass4netnsd at this path, through which container tools ask for native ports of containers'
complete -c rootlesskit -n __rootlesskit_in_options -l pidns -d 'make a PID namespace'
complete -c rootlesskit -n __rootlesskit_in_options -l cgroupns -d 'make a cgroup namespace'
complete -c rootlesskit -n __rootlesskit_in_options -l utsns -d 'make a UTS namespace'
complete -c rootlesskit -n __rootlesskit_in_options -l ipcns -d 'make an IPC namespace'
complete -c rootlesskit -n __rootlesskit_in_options -l reaper -x -a 'auto true false' -d 'run the command as a session leader, below a process that reaps orphans'
complete -c rootlesskit -n __rootlesskit_in_options -l sdnotify -x -a 'command launcher' -d 'who tells the service manager that the service is ready, by sd_notify'
complete -c rootlesskit -n __rootlesskit_in_options -l evacuate-cgroup2 -x -d 'move the processes of the cgroup'
complete -c rootlesskit -n __rootlesskit_in_options -l state-dir -x -a '(__fish_complete_directories)' -d 'state directory DIR, created if missing, and removed at the end'
complete -c rootlesskit -n __rootlesskit_in_options -l subid-source -x -a 'auto dynamic static' -d 'where subordinate ids come from'
complete -c rootlesskit -n __rootlesskit_in_options -l help -s h -d 'show help'
complete -c rootlesskit -n __rootlesskit_in_options -l version -s v -d 'print the version'
complete -c rootlesskit -x -a '(__fish_complete_subcommand - --print-semver --copy-up --copy-up-mode --propagation --net --mtu --cidr --ifname --port-driver --publish -p --source-ip-transparent-backend --pasta-binary --pesto-binary --slirp4netns-binary --slirp4netns-sandbox --slirp4netns-seccomp --vpnkit-binary --lxc-user-nic-binary --lxc-user-nic-bridge --bypass4netnsd-socket --reaper --sdnotify --evacuate-cgroup2 --state-dir --subid-source)'
