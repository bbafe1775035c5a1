package gvisor

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rootlesskit/internal/nstest"
)

// lossy makes a namespace lose one packet of a hundred, in each direction.
func lossy(t *testing.T, space *nstest.Child) {
	t.Helper()
	const rules = `table inet lossy {
		chain in { type filter hook input priority 0; iifname != lo numgen random mod 100 < 1 drop; }
		chain out { type filter hook output priority 0; oifname != lo numgen random mod 100 < 1 drop; }
	}`
	runIn(t, space, "/usr/sbin/nft", rules)
}

// exchangePlan is what happens on a connection: how much goes up and down, and whether
// the answer waits for the end of the question.
type exchangePlan struct {
	up, down int
	inTurn   bool
	seed     uint64
}

func randomPlan(r *rand.Rand) exchangePlan {
	sizes := []int{0, 1, 100, 1460, 5000, 65_483, 65_536, 200_000}
	return exchangePlan{up: r.IntN(1 + sizes[r.IntN(len(sizes))]), down: r.IntN(1 + sizes[r.IntN(len(sizes))]), inTurn: r.IntN(2) == 0, seed: r.Uint64()}
}

const planLen = 21

func (p exchangePlan) encode() []byte {
	b := make([]byte, planLen)
	binary.BigEndian.PutUint32(b, uint32(p.up))
	binary.BigEndian.PutUint32(b[4:], uint32(p.down))
	binary.BigEndian.PutUint64(b[8:], p.seed)
	if p.inTurn {
		b[16] = 1
	}
	binary.BigEndian.PutUint32(b[17:], crc32.ChecksumIEEE(b[:17]))
	return b
}

func decodePlan(b []byte) (p exchangePlan, err error) {
	if crc32.ChecksumIEEE(b[:17]) != binary.BigEndian.Uint32(b[17:]) {
		return p, fmt.Errorf("the plan was damaged: %x", b)
	}
	return exchangePlan{
		up: int(binary.BigEndian.Uint32(b)), down: int(binary.BigEndian.Uint32(b[4:])),
		seed: binary.BigEndian.Uint64(b[8:]), inTurn: b[16] == 1,
	}, nil
}

// bytesOf are the bytes of a direction.
func bytesOf(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte(binary.BigEndian.AppendUint64(make([]byte, 24), seed))).Read(b)
	return b
}

// write writes in random pieces, with pauses, and ends the direction.
func writePieces(c *net.TCPConn, b []byte, r *rand.Rand) error {
	for len(b) > 0 {
		n := min(len(b), 1+r.IntN(40_000))
		if _, err := c.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		if r.IntN(4) == 0 {
			time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)
		}
	}
	return c.CloseWrite()
}

// play has a side of the plan: what to send, and what has to come.
func (p exchangePlan) play(c *net.TCPConn, server bool) error {
	send, want := bytesOf(p.seed, p.up), bytesOf(p.seed+1, p.down)
	if server {
		send, want = want, send
	}
	r := rand.New(rand.NewPCG(p.seed, uint64(len(send))))
	sent := make(chan error, 1)
	later := server && p.inTurn
	if !later {
		go func() { sent <- writePieces(c, send, r) }()
	}
	got, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if string(got) != string(want) {
		return fmt.Errorf("%d other bytes came than the %d that were sent", len(got), len(want))
	}
	if later {
		return writePieces(c, send, r)
	}
	return <-sent
}

// TestOutboundTCPLossy makes a thousand connections of random sizes, directions, ends
// and pauses, through a link that loses one packet of a hundred.
func TestOutboundTCPLossy(t *testing.T) {
	const connections, atATime = 1000, 100
	s := newSandbox(t)
	lossy(t, s.child)
	to := netip.AddrPortFrom(hostAddr4, 7)
	var dialed atomic.Int32
	served := make(chan struct{}, connections)
	accepts(s.host.ListenTCP(t, "tcp", to.String()), func(c *net.TCPConn) {
		defer func() { served <- struct{}{} }()
		_ = c.SetDeadline(time.Now().Add(3 * time.Minute))
		b := make([]byte, planLen)
		if _, err := io.ReadFull(c, b); err != nil {
			t.Errorf("server: %v", err)
			return
		}
		p, err := decodePlan(b)
		if err == nil {
			err = p.play(c, true)
		}
		if err != nil {
			t.Errorf("server, %+v: %v", p, err)
		}
	})
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	places := make(chan struct{}, atATime)
	var wg sync.WaitGroup
	for range connections {
		p := randomPlan(random)
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			c, err := dial(t, s.child, netip.Addr{}, to)
			if err != nil {
				t.Errorf("dial: %v", err)
				return
			}
			defer c.Close()
			dialed.Add(1)
			_ = c.SetDeadline(time.Now().Add(3 * time.Minute))
			if _, err = c.Write(p.encode()); err == nil {
				err = p.play(c, false)
			}
			if err != nil {
				t.Errorf("client, %+v: %v", p, err)
			}
		})
	}
	wg.Wait()
	for range dialed.Load() { // what a client has sent may be on its way when it has closed
		<-served
	}
}
