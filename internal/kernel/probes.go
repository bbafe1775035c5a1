package kernel

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// withSocket calls f with a socket.
func withSocket(family, kind, proto int, f func(fd int) error) error {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	return f(fd)
}

func probeUDPGRO() error {
	return withSocket(unix.AF_INET, unix.SOCK_DGRAM, 0, func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1))
	})
}

func probePidfdGetfd() error {
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, pidfd, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_getfd", err)
	}
	return unix.Close(fd)
}

func probeNetnsCookie() error {
	return withSocket(unix.AF_UNIX, unix.SOCK_DGRAM, 0, func(fd int) error {
		_, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return os.NewSyscallError("getsockopt", err)
	})
}

// probeNotifications passes the flags of a filter, but no filter: a kernel that
// knows the flags fails to read the filter (EFAULT); another refuses the flags
// (EINVAL).
func probeNotifications() error {
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, 0)
	if errno == unix.EFAULT {
		return nil
	}
	return os.NewSyscallError("seccomp", errno)
}

// landlockTCP is the first version of Landlock that supports TCP.
const landlockTCP = 4

func probeLandlockTCP() error {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return os.NewSyscallError("landlock_create_ruleset", errno)
	}
	if version < landlockTCP {
		return fmt.Errorf("its Landlock has version %d, and TCP needs version %d", version, landlockTCP)
	}
	return nil
}

func probeThreadPidfd() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const pidfdThread = unix.O_EXCL // PIDFD_THREAD
	fd, err := unix.PidfdOpen(unix.Gettid(), pidfdThread)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	return unix.Close(fd)
}

// probeNFTables asks nf_tables for its generation (NFT_MSG_GETGEN). A kernel without
// nf_tables answers EINVAL, nfnetlink's error for an unknown subsystem.
func probeNFTables() error {
	return withSocket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER, func(fd int) error {
		request := binary.NativeEndian.AppendUint32(nil, unix.NLMSG_HDRLEN+4)
		request = binary.NativeEndian.AppendUint16(request, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN)
		request = binary.NativeEndian.AppendUint16(request, unix.NLM_F_REQUEST)
		request = append(request, make([]byte, 8)...) // sequence, port
		request = append(request, make([]byte, 4)...) // nfgenmsg
		if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return os.NewSyscallError("sendto", err)
		}
		answer := make([]byte, 4096)
		n, _, err := unix.Recvfrom(fd, answer, 0)
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		if n >= unix.NLMSG_HDRLEN+4 && binary.NativeEndian.Uint16(answer[4:]) == unix.NLMSG_ERROR {
			if errno := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); errno != 0 {
				return unix.Errno(-errno)
			}
		}
		return nil
	})
}

// probeIPTables asks for the table mangle (struct ipt_getinfo). The host's root has
// to load the module ip_tables; the kernel then loads the table's module
// automatically.
func probeIPTables() error {
	return withSocket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW, func(fd int) error {
		const getInfo = 64 // IPT_SO_GET_INFO
		var info struct {
			name    [32]byte
			numbers [13]uint32
		}
		copy(info.name[:], "mangle")
		size := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, getInfo,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return os.NewSyscallError("getsockopt", errno)
		}
		return nil
	})
}

func probeIPv6() error {
	return withSocket(unix.AF_INET6, unix.SOCK_DGRAM, 0, func(int) error { return nil })
}

func probeTUN() error { return withTAP(func(int) error { return nil }) }

// probeTUNSegmentation needs a TAP device, and so a network namespace of its own.
func probeTUNSegmentation() error {
	const offloads = unix.TUN_F_CSUM | unix.TUN_F_USO4 | unix.TUN_F_USO6
	asked := false
	err := withTAP(func(fd int) error {
		asked = true
		return os.NewSyscallError("TUNSETOFFLOAD", unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads))
	})
	if err != nil && !asked {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}

// withTAP calls f with a new TAP device of the calling thread's namespace.
func withTAP(f func(fd int) error) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("rkprobe%d")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return os.NewSyscallError("TUNSETIFF", err)
	}
	return f(fd)
}
