package compat

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/nstest"
)

// TestSockets compares the sockets of a published port, on both sides, while a
// client of each protocol is there: options, and what client and server see.
func TestSockets(t *testing.T) {
	for _, pair := range pairs[:6] {
		for _, flags := range []string{"", " --detach-netns", " --source-ip-transparent=false"} {
			t.Run(pair+flags, func(t *testing.T) {
				t.Parallel()
				compare(t, func(t *testing.T, s *subject) { s.published(t, strings.Fields(pair+flags)) })
			})
		}
	}
}

func (s *subject) published(t *testing.T, flags []string) {
	ports := s.namePorts(t, "$PORT", "$NOBODY")
	spec := ports.Replace("127.0.0.1:$PORT:80/tcp,127.0.0.1:$PORT:80/udp,127.0.0.1:$NOBODY:81/tcp")
	serve := `exec "$0" serve "$1/ready"`
	for _, flag := range flags {
		if flag == "--detach-netns" {
			serve = `exec nsenter --net="$ROOTLESSKIT_STATE_DIR/netns" "$0" serve "$1/ready"`
		}
	}
	flags = append(flags, "--copy-up=/etc", "--disable-host-loopback", "-p", spec)
	cmd := s.startCommand(t, flags, "sh", "-c", serve, inBin("probe"), s.dir)
	address := ports.Replace("127.0.0.1:$PORT")
	conn := s.converse("tcp", address)
	udp := s.converse("udp", address)
	port, _ := strconv.Atoi(ports.Replace("$PORT"))
	for _, pid := range append(nstest.Descendants(cmd.Process.Pid), cmd.Process.Pid) {
		s.saySockets(pid, port)
	}
	s.sayTimers(t, port)
	if conn != nil {
		s.halfClose(conn)
	}
	if udp != nil {
		udp.Close()
	}
	s.refused(ports.Replace("127.0.0.1:$NOBODY"))
}

// converse connects and reports what the server calls its client. It tries
// again while the server starts; an answer that never comes is reported too.
func (s *subject) converse(network, address string) net.Conn {
	var err error
	for range 40 {
		var conn net.Conn
		var answer string
		if conn, answer, err = greet(network, address); err == nil {
			host, _, _ := net.SplitHostPort(answer)
			s.say(network+": the server's client", host)
			return conn
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.say(network+": the server's client", "no answer")
	return nil
}

func greet(network, address string) (net.Conn, string, error) {
	conn, err := net.Dial(network, address)
	if err != nil {
		return nil, "", err
	}
	_ = conn.SetDeadline(deadline(20))
	if network == "udp" { // a datagram that nobody hears has no answer
		_ = conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
		_, err = conn.Write([]byte("x"))
	}
	buf := make([]byte, 200)
	n := 0
	if err == nil {
		n, err = conn.Read(buf)
	}
	if err != nil {
		conn.Close()
		return nil, "", err
	}
	return conn, strings.TrimSpace(string(buf[:n])), nil
}

// halfClose ends what the client sends, and looks at what comes back.
func (s *subject) halfClose(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(deadline(20))
	_, err := conn.Write([]byte("last words"))
	s.say("tcp: a write", fmt.Sprint(err))
	s.say("tcp: a half-close", fmt.Sprint(conn.(*net.TCPConn).CloseWrite()))
	var all []byte
	buf := make([]byte, 200)
	for {
		n, err := conn.Read(buf)
		all = append(all, buf[:n]...)
		if err != nil {
			s.saidf("tcp: after the half-close", "%q, %v", all, err)
			return
		}
	}
}

// refused reports what a client sees of a port behind which nobody listens.
func (s *subject) refused(address string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		s.say("tcp: nobody listens", lastPart(err))
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(deadline(20))
	_, err = conn.Read(make([]byte, 1))
	s.say("tcp: nobody listens", lastPart(err))
}

func lastPart(err error) string {
	parts := strings.Split(err.Error(), ": ")
	return parts[len(parts)-1]
}

// saySockets reports the options of a process's sockets that have to do with
// the published port. The command is left out: its sockets are its own.
func (s *subject) saySockets(pid, port int) {
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if strings.HasPrefix(string(comm), "probe") {
		return
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(process)
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		target, _ := os.Readlink(link)
		number, _ := strconv.Atoi(filepath.Base(link))
		if !strings.HasPrefix(target, "socket:") {
			continue
		}
		if fd, err := unix.PidfdGetfd(process, number, 0); err == nil {
			s.saySocket(fd, port)
			unix.Close(fd)
		}
	}
}

func (s *subject) saySocket(fd, port int) {
	kind, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	local, localErr := unix.Getsockname(fd)
	remote, remoteErr := unix.Getpeername(fd)
	if localErr != nil || portOf(local) < 0 {
		return
	}
	listens, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	role := map[int]string{unix.SOCK_STREAM: "tcp", unix.SOCK_DGRAM: "udp"}[kind]
	switch {
	case portOf(local) == port && remoteErr == nil:
		role += ", the client's side"
	case portOf(local) == port && (listens == 1 || kind == unix.SOCK_DGRAM):
		role += ", published"
	case remoteErr == nil && portOf(remote) == 80:
		role += ", the server's side"
	default:
		return
	}
	for name, option := range options {
		if value, err := unix.GetsockoptInt(fd, option[0], option[1]); err == nil {
			s.saidf("socket: "+role+": "+name, "%d", value)
		}
	}
	var linger unix.Linger
	if l, err := getLinger(fd); err == nil {
		linger = l
	}
	s.saidf("socket: "+role+": linger", "%v", linger)
}

var options = map[string][2]int{
	"keepalive": {unix.SOL_SOCKET, unix.SO_KEEPALIVE}, "keepalive: idle": {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}, "keepalive: interval": {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
	"keepalive: count": {unix.IPPROTO_TCP, unix.TCP_KEEPCNT}, "nodelay": {unix.IPPROTO_TCP, unix.TCP_NODELAY}, "cork": {unix.IPPROTO_TCP, unix.TCP_CORK}, "user timeout": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
	"defer accept": {unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT}, "fast open": {unix.IPPROTO_TCP, unix.TCP_FASTOPEN}, "reuse address": {unix.SOL_SOCKET, unix.SO_REUSEADDR},
	"reuse port": {unix.SOL_SOCKET, unix.SO_REUSEPORT}, "broadcast": {unix.SOL_SOCKET, unix.SO_BROADCAST}, "mark": {unix.SOL_SOCKET, unix.SO_MARK}, "priority": {unix.SOL_SOCKET, unix.SO_PRIORITY}, "out of band inline": {unix.SOL_SOCKET, unix.SO_OOBINLINE},
	"receive buffer": {unix.SOL_SOCKET, unix.SO_RCVBUF}, "send buffer": {unix.SOL_SOCKET, unix.SO_SNDBUF}, "protocol": {unix.SOL_SOCKET, unix.SO_PROTOCOL}, "domain": {unix.SOL_SOCKET, unix.SO_DOMAIN}, "transparent": {unix.SOL_IP, unix.IP_TRANSPARENT}, "free bind": {unix.SOL_IP, unix.IP_FREEBIND},
	"tos": {unix.SOL_IP, unix.IP_TOS}, "ttl": {unix.SOL_IP, unix.IP_TTL}, "path MTU discovery": {unix.SOL_IP, unix.IP_MTU_DISCOVER}, "receive errors": {unix.SOL_IP, unix.IP_RECVERR}, "address without port": {unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT}, "packet info": {unix.SOL_IP, unix.IP_PKTINFO},
	"IPv6 alone": {unix.SOL_IPV6, unix.IPV6_V6ONLY}, "busy poll": {unix.SOL_SOCKET, unix.SO_BUSY_POLL}, "error": {unix.SOL_SOCKET, unix.SO_ERROR}, "zero copy": {unix.SOL_SOCKET, unix.SO_ZEROCOPY}, "timestamps": {unix.SOL_SOCKET, unix.SO_TIMESTAMP},
}

func portOf(sa unix.Sockaddr) int {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return sa.Port
	case *unix.SockaddrInet6:
		return sa.Port
	}
	return -1
}

// sayTimers reports the timers that ss shows on the host's side.
func (s *subject) sayTimers(t *testing.T, port int) {
	t.Helper()
	for role, filter := range map[string]string{"listener": "listening", "connection": "established"} {
		out := finish(t, s.tool(t, "ss", "-Htno", "state", filter, fmt.Sprintf("sport = :%d", port)))
		for _, line := range strings.Split(strings.TrimSpace(out.stdout), "\n") {
			s.say("ss: "+role, seconds.ReplaceAllString(strings.Join(timers.FindAllString(line, -1), " "), "${1}N"))
		}
	}
}

var (
	timers  = regexp.MustCompile(`timer:\([^)]*\)`)
	seconds = regexp.MustCompile(`(keepalive,)[0-9.]+(min|sec|ms)[0-9.sec]*`)
)
