package fdswap

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func FuzzEpollEntries(f *testing.F) {
	f.Add("        5 events:       19 data:         7fff00000005  pos:0 ino:1f sdev:9")
	f.Add("5 events: x data: 1")
	f.Fuzz(func(t *testing.T, line string) {
		for _, e := range epollEntries([]string{line}, []descriptor{{number: 5}}) {
			if e.target != 5 {
				t.Errorf("%q: %+v", line, e)
			}
		}
	})
}

func TestEpollEntries(t *testing.T) {
	line := "        5 events:     2019 data: 1234567890abcdef  pos:0 ino:1f sdev:9"
	entries := epollEntries([]string{line}, []descriptor{{number: 4}, {number: 5}})
	want := unix.EpollEvent{Events: 0x2019, Fd: int32(-0x6f543211), Pad: 0x12345678}
	if len(entries) != 1 || entries[0].event != want {
		t.Errorf("%+v, want %+v", entries, want)
	}
}

func FuzzStatus(f *testing.F) {
	f.Add("Name:\tx\nTgid:\t7\nPid:\t8\nGroups:\t0 \nSigPnd:\t0000000000000001\nShdPnd:\t0000000000000002\nSigBlk:\t0000000000000001\nCapEff:\t0000000000000400\n")
	f.Add("Tgid: x\nTgid: 1")
	f.Add("Tgid: 99999999999999999999")
	f.Fuzz(func(t *testing.T, text string) {
		p := &Caller{TID: 1}
		if err := p.parseStatus(text); (err != nil || p.PID != 0) && !strings.Contains(text, "Tgid") {
			t.Errorf("%q: %v, %+v", text, err, p)
		}
	})
}

// TestStatus has a line that is longer than any buffer.
func TestStatus(t *testing.T) {
	p := &Caller{TID: 8}
	text := "Name:\tCapEff: 0\nTgid:\t7\nGroups:\t" + strings.Repeat("4294967294 ", 65536) +
		"\nSigPnd:\t0000000000000001\nShdPnd:\t0000000000000006\nSigBlk:\t0000000000000002\nSigCgt:\t0000000000000004\nCapEff:\t0000000000000400\n"
	if err := p.parseStatus(text); err != nil || p.PID != 7 || !p.Has(unix.CAP_NET_BIND_SERVICE) || p.pending != 5 || p.caught != 4 {
		t.Errorf("%v: %+v", err, p)
	}
}

func FuzzFDInfo(f *testing.F) {
	f.Add("pos:\t0\nflags:\t02000002\nmnt_id:\t10\nino:\t1234\n", "10")
	f.Add("pos:\t0\nmnt_id:\t11\nino:\t1\nmnt_id:\t10\nino:\t2\n", "10")
	f.Add("ino: -1\nmnt_id:", "")
	f.Add("tfd:        5 events:       19 data:                5  pos:0 ino:1f sdev:9", "1")
	f.Fuzz(func(t *testing.T, text, mount string) {
		info := parseFDInfo(text)
		link := linkOf(info, mount)
		if strings.HasPrefix(link, "socket:") && (mount == "" || info["mnt_id"][0] != mount) {
			t.Errorf("%q on mount %q: %s", text, mount, link)
		}
		for _, e := range epollEntries(info["tfd"], []descriptor{{number: 5}}) {
			if e.target != 5 {
				t.Errorf("%q: %+v", text, e)
			}
		}
	})
}

// TestLinkOfFDInfo: both ways to know a descriptor agree.
func TestLinkOfFDInfo(t *testing.T) {
	open := func(fd int, err error) int {
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	tcp := open(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	epoll := open(unix.EpollCreate1(unix.EPOLL_CLOEXEC))
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, tcp, &unix.EpollEvent{}); err != nil {
		t.Fatal(err)
	}
	file := open(unix.Open("/dev/null", unix.O_CLOEXEC, 0))
	memory := open(unix.MemfdCreate("socket:[1]", unix.MFD_CLOEXEC))
	for fd, known := range map[int]bool{tcp: true, epoll: true, file: false, memory: false} {
		want := ""
		if known {
			want = fdLink(os.Getpid(), fd)
		}
		if got := linkOf(fdInfo(os.Getpid(), fd), socketMount()); got != want {
			t.Errorf("descriptor %d: %q, want %q", fd, got, want)
		}
	}
}
