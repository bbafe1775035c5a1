package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// signals prints the names of the signals that arrive.
func signals(count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	arrived := make(chan os.Signal, 64)
	for s := syscall.Signal(1); s < 32; s++ {
		if s != syscall.SIGKILL && s != syscall.SIGSTOP && s != syscall.SIGURG && s != syscall.SIGCHLD {
			signal.Notify(arrived, s)
		}
	}
	fmt.Println("ready")
	_ = os.WriteFile("ready", nil, 0o644)
	for range n {
		fmt.Println((<-arrived).(syscall.Signal))
	}
	return nil
}

// serve answers with the client's address, then echoes until the end of file.
func serve(ready string) error {
	l, err := net.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	udp, err := net.ListenPacket("udp", ":80")
	if err != nil {
		return err
	}
	if err := os.WriteFile(ready, nil, 0o644); err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 1500)
		for {
			_, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo([]byte(from.String()), from)
		}
	}()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			fmt.Fprintln(conn, conn.RemoteAddr())
			_, _ = io.Copy(conn, conn)
		}()
	}
}
