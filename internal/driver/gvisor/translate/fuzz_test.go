package translate

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// script is a list of steps, as a fuzzer writes them.
type script []byte

func (s *script) byte() byte {
	if len(*s) == 0 {
		return 0
	}
	b := (*s)[0]
	*s = (*s)[1:]
	return b
}

// number is small, or anything.
func (s *script) number() uint32 {
	b := s.byte()
	switch b >> 6 {
	case 0, 1:
		return uint32(int32(int8(b<<1)) >> 1)
	case 2:
		return uint32(b&0x3f)<<8 | uint32(s.byte())
	}
	return uint32(b)<<26 | uint32(s.byte())<<16
}

// segment sends a segment, whose numbers are relative to those that are expected.
func (s *script) segment(p *peer) {
	flags := header.TCPFlags(s.byte())
	seg := segment{flow: p.flow, flags: flags & 0x3f, seq: p.iss, window: uint16(s.byte()) << (flags >> 4)}
	if c := p.w.tr.conns[p.flow]; c != nil {
		seg.seq, seg.ack = c.rcvNxt, c.sndNxt
	}
	seg.seq += s.number()
	seg.ack -= s.number()
	if seg.has(header.TCPFlagSyn) {
		for range s.byte() & 3 {
			seg.options = append(seg.options, s.byte(), s.byte(), s.byte(), s.byte())
		}
	}
	seg.payload = make([]byte, s.number()&0xffff%65_000)
	p.w.tr.Packet(seg.packet())
}

// socket changes a socket, and gives an event.
func (s *script) socket(k *fakeSocket) {
	what := s.byte()
	if k.closed {
		return
	}
	errnos := []unix.Errno{0, unix.ECONNRESET, unix.EPIPE, unix.EINPROGRESS, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ETIMEDOUT, 0}
	errno := errnos[what&7]
	switch what >> 3 & 7 {
	case 0:
		k.err = errno
	case 1:
		k.input = append(k.input, make([]byte, s.number()&0x3ffff)...)
	case 2:
		k.eof = true
	case 3:
		if errno != unix.EINPROGRESS {
			k.recvErr = errno
		}
	case 4:
		k.room = int(s.number() & 0x3ffff)
	case 5:
		k.sendErr = errno
	case 6:
		k.urgent = int(s.byte())
	}
	k.watcher.Ready(uint32(s.byte()) | uint32(what>>6)<<13)
}

// step does one thing.
func (s *script) step(w *world) {
	op := s.byte()
	p := w.peer(uint16(1 + op>>6))
	switch op & 7 {
	case 0, 1, 2:
		s.segment(p)
	case 3, 4:
		if c := w.tr.conns[p.flow]; c != nil {
			s.socket(c.socket.(*fakeSocket))
		}
	case 5:
		w.tr.EndRound()
	case 6:
		w.now += time.Duration(s.number()&0xffff) * time.Millisecond
		w.tr.Fire()
	case 7:
		w.dialErr = []error{nil, unix.ECONNREFUSED, nil, unix.ENETUNREACH}[op>>3&3]
	}
	w.take()
}

// FuzzSegments: no segments, events and times confuse a Translator, or make it keep
// something.
func FuzzSegments(f *testing.F) {
	opened := []byte{0, 2, 100, 0, 0, 0, 0, 3, 0, 4, 0, 0x10, 100, 0, 0, 0}
	for _, more := range []string{
		"", "\x00\x10\x64\x00\x00\x20\x05", "\x03\x0a\x85\x00\x01\x05", "\x00\x11\x64\x00\x00\x00\x03\x10\x01",
		"\x03\x20\x00\x04\x00\x10\x64\x00\x00\x20\x03\x20\x99\x99\x04", "\x03\x0a\x99\x99\x01\x06\x99\x99\x06\xbf\xff\x00\x04\x64\x00\x00\x00",
	} {
		f.Add(append(opened[:len(opened):len(opened)], more...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newWorldMTU(t, 65520)
		for s := script(b[:min(len(b), 2000)]); len(s) > 0; {
			s.step(w)
			w.check()
		}
		for w.tr.EndRound() {
		}
		w.check()
		w.others()
		w.empty()
	})
}
