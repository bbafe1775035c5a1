package sourceip

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/wire"
)

// answering is a child that gives one answer to all.
type answering []byte

func (a answering) Call(_ context.Context, _ string, _, reply any) ([]int, error) {
	return nil, wire.Message{Kind: "reply", Body: json.RawMessage(a)}.Decode(reply)
}

// FuzzAnswers: whatever the child says, a client's way ends at the port of the
// server, and Backend is a name that clients of the REST API know.
func FuzzAnswers(f *testing.F) {
	for _, answer := range []string{
		`{"backend":"nft","local":"127.0.0.1","v4":{"real":"10.0.2.100","plain":"127.0.0.1","plainSource":"10.0.2.100"}}`,
		`{"backend":"none","silent":true,"inner":["10.0.0.0/8","fd00::/8"],"v6":{"problem":"x","serving":["::1"]}}`,
		`{"backend":"x"}`, `{"inner":["10.0.0.0/99"]}`, `[]`, `{`,
	} {
		f.Add([]byte(answer))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		p := New(t.Context(), Config{Child: answering(answer), Backend: "auto", Log: slog.New(slog.DiscardHandler)})
		for _, client := range []string{"127.0.0.1:1", "198.51.100.1:1", "[2001:db8::1]:1"} {
			port := p.Port(unix.IPPROTO_TCP, netip.MustParseAddrPort("127.0.0.1:80"), Default)
			if r := port.Resolve(t.Context(), netip.MustParseAddrPort(client)); r.Target.IsValid() && r.Target.Port() != 80 {
				t.Errorf("%s: %s is led to %s", answer, client, r.Target)
			}
		}
		if err := verifyBackend(p.Backend()); err != nil {
			t.Errorf("%s: %v", answer, err)
		}
	})
}

// TestProblemsAreBounded: a child that thinks of ever new problems does not fill the
// log.
func TestProblemsAreBounded(t *testing.T) {
	var out bytes.Buffer
	p := New(t.Context(), Config{Log: slog.New(slog.NewTextHandler(&out, nil))})
	for i := range 1000 {
		p.say(strings.Repeat("x", 1<<16) + time.Duration(i).String())
		p.say(time.Duration(i).String())
	}
	if lines := strings.Count(out.String(), "\n"); lines == 0 || lines > maxSaid || out.Len() > maxSaid*(maxProblem+1000) {
		t.Errorf("%d lines of %d bytes", lines, out.Len())
	}
}
