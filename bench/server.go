package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"
)

// The servers' protocol. Every message of a client begins with one byte that
// says what the server is to do with it; a message is messageSize bytes long
// unless stated otherwise.
const (
	opEcho     = 'e' // TCP, UDP: send the message back
	opEchoEnd  = 'c' // TCP: the same, then close: the server has the TIME_WAIT
	opDownload = 'd' // TCP: send blocks until the client closes
	opUpload   = 'u' // TCP: blocks follow; after one that begins with lastBlock, send their size
	opCount    = 'n' // UDP: a datagram of any size to count
	opCounted  = 'q' // UDP: send the number of counted datagrams
)

const (
	messageSize = 64
	blockSize   = 128 << 10
	lastBlock   = 1
)

// server is the other side of all loads, on one port number over TCP and UDP.
type server struct {
	tcp net.Listener
	udp *net.UDPConn
}

func startServer(addr string) (*server, error) {
	tcp, err := net.Listen("tcp4", addr)
	if err != nil {
		return nil, err
	}
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(tcp.Addr().String())))
	if err != nil {
		tcp.Close()
		return nil, err
	}
	s := &server{tcp, udp}
	go s.serveTCP()
	go s.serveUDP()
	return s, nil
}

func (s *server) close() {
	s.tcp.Close()
	s.udp.Close()
}

func (s *server) serveTCP() {
	for {
		c, err := s.tcp.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // out of descriptors, for example
			time.Sleep(10 * time.Millisecond)
		default:
			go serveConn(c)
		}
	}
}

func serveConn(c net.Conn) {
	defer c.Close()
	msg := make([]byte, messageSize)
	for {
		if _, err := io.ReadFull(c, msg); err != nil {
			return
		}
		switch msg[0] {
		case opEcho:
			if _, err := c.Write(msg); err != nil {
				return
			}
		case opEchoEnd:
			_, _ = c.Write(msg)
			return
		case opDownload:
			sendBlocks(c)
			return
		case opUpload:
			receiveBlocks(c)
			return
		}
	}
}

func sendBlocks(c net.Conn) {
	block := make([]byte, blockSize)
	for {
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}

func receiveBlocks(c net.Conn) {
	block := make([]byte, blockSize)
	for total := uint64(blockSize); ; total += blockSize {
		if _, err := io.ReadFull(c, block); err != nil {
			return
		}
		if block[0] == lastBlock {
			_, _ = c.Write(binary.BigEndian.AppendUint64(nil, total))
			return
		}
	}
}

func (s *server) serveUDP() {
	buf := make([]byte, 64<<10)
	var counted uint64
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n == 0 { // an ICMP error of an earlier reply
			continue
		}
		switch buf[0] {
		case opEcho:
			_, _ = s.udp.WriteToUDPAddrPort(buf[:n], from)
		case opCount:
			counted++
		case opCounted:
			_, _ = s.udp.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, counted), from)
		}
	}
}
