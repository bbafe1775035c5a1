package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

func throughputFigures() []Figure {
	gbits := rate("Gbit/s")
	return []Figure{
		inward("tcp-up-1", "tcp", "TCP to the namespace, 1 stream", Load{Kind: upload, Clients: 1}, gbits),
		inward("tcp-down-1", "tcp", "TCP from the namespace, 1 stream", Load{Kind: download, Clients: 1}, gbits),
		inward("tcp-up-4", "tcp", "TCP to the namespace, 4 streams", Load{Kind: upload, Clients: 4}, gbits),
		inward("tcp-down-4", "tcp", "TCP from the namespace, 4 streams", Load{Kind: download, Clients: 4}, gbits),
		outward("out-up-1", "outbound TCP, sending, 1 stream", Load{Kind: upload, Clients: 1}, gbits),
		outward("out-down-1", "outbound TCP, receiving, 1 stream", Load{Kind: download, Clients: 1}, gbits),
	}
}

// runUpload counts what the receiver says it has got, so that bytes in buffers
// on the way do not count.
func runUpload(l Load) (Values, error) {
	var total atomic.Uint64
	took, err := l.each(func(_ int, c net.Conn, end time.Time) error {
		n, err := uploadStream(c, end)
		total.Add(n)
		return err
	})
	return gbitRate(total.Load(), took), err
}

func uploadStream(c net.Conn, end time.Time) (uint64, error) {
	if _, err := c.Write(message(opUpload)); err != nil {
		return 0, err
	}
	block := make([]byte, blockSize)
	for time.Now().Before(end) {
		if _, err := c.Write(block); err != nil {
			return 0, err
		}
	}
	block[0] = lastBlock
	if _, err := c.Write(block); err != nil {
		return 0, err
	}
	var count [8]byte
	_, err := io.ReadFull(c, count[:])
	return binary.BigEndian.Uint64(count[:]), err
}

func runDownload(l Load) (Values, error) {
	var total atomic.Uint64
	took, err := l.each(func(_ int, c net.Conn, end time.Time) error {
		n, err := downloadStream(c, end)
		total.Add(n)
		return err
	})
	return gbitRate(total.Load(), took), err
}

func downloadStream(c net.Conn, end time.Time) (total uint64, err error) {
	if _, err := c.Write(message(opDownload)); err != nil {
		return 0, err
	}
	if err := c.SetReadDeadline(end); err != nil {
		return 0, err
	}
	block := make([]byte, blockSize)
	for {
		n, err := c.Read(block)
		total += uint64(n)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

func gbitRate(bytes uint64, took time.Duration) Values {
	return Values{"rate": float64(bytes) * 8 / 1e9 / took.Seconds()}
}
