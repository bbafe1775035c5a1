package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// agentArg makes this program an agent: `bench agent LISTEN`.
const agentArg = "agent"

// hello is the agent's first line: it serves now.
type hello struct {
	// Gateway is the default gateway of its network, which stands for the
	// host's loopback in the networks that are measured; invalid without one.
	Gateway netip.Addr `json:"gateway"`
	// Began is when its container was asked for; zero without one.
	Began time.Time `json:"began,omitzero"`
}

// answer is the agent's answer to a Load.
type answer struct {
	Values Values `json:"values,omitempty"`
	Error  string `json:"error,omitempty"`
}

// runAgent serves on the address and runs the loads that come in as JSON on
// the standard input, until that ends.
func runAgent(listen string) error {
	s, err := startServer(listen)
	if err != nil {
		return err
	}
	defer s.close()
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	if err := out.Encode(hello{Gateway: defaultGateway()}); err != nil {
		return err
	}
	for {
		var load Load
		if err := in.Decode(&load); err != nil {
			return nil // the end of the measuring process is an end of file here
		}
		var a answer
		if a.Values, err = load.run(); err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

func defaultGateway() netip.Addr {
	f, err := os.Open("/proc/net/route")
	if err != nil {
		return netip.Addr{}
	}
	defer f.Close()
	return parseGateway(f)
}

// parseGateway finds the default route in /proc/net/route: the second field is
// the destination and the third the gateway, in hexadecimal and host order.
func parseGateway(r io.Reader) netip.Addr {
	for sc := bufio.NewScanner(r); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) < 3 || fields[1] != "00000000" {
			continue
		}
		if n, err := strconv.ParseUint(fields[2], 16, 32); err == nil {
			return netip.AddrFrom4([4]byte(binary.NativeEndian.AppendUint32(nil, uint32(n))))
		}
	}
	return netip.Addr{}
}

// agent is the measuring process's end of one.
type agent struct {
	in    io.WriteCloser
	out   *json.Decoder
	hello hello
}

// newAgent waits for the agent to serve.
func newAgent(in io.WriteCloser, out io.Reader) (*agent, error) {
	a := &agent{in: in, out: json.NewDecoder(out)}
	if err := a.out.Decode(&a.hello); err != nil {
		return nil, fmt.Errorf("the command did not start: %w", err)
	}
	return a, nil
}

func (a *agent) run(l Load) (Values, error) {
	if err := json.NewEncoder(a.in).Encode(l); err != nil {
		return nil, err
	}
	var ans answer
	if err := a.out.Decode(&ans); err != nil {
		return nil, fmt.Errorf("the agent ended: %w", err)
	}
	if ans.Error != "" {
		return nil, errors.New(ans.Error)
	}
	return ans.Values, nil
}
