// Command peer is server and client of the checks in a virtual machine.
//
//	peer features           the features of the kernel, as this process finds them
//	peer serve PORT         TCP and UDP on all addresses
//	peer who tcp|udp ADDR   what the server says who asks
//	peer bulk ADDR MB       both ways over TCP, with checksums
//	peer udpbulk ADDR N     N datagrams there and back, one after the other
//	peer dns ADDR IP        a name server that answers every A with IP
//	peer lookup NAME        by the name servers of /etc/resolv.conf
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"rootlesskit/internal/kernel"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println("ERROR", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("no command")
	}
	args = append(args, "", "") // what is missing is refused below
	switch args[0] {
	case "features":
		features()
		return nil
	case "serve":
		return serve(args[1])
	case "who":
		return who(args[1], args[2])
	case "bulk", "udpbulk":
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		if args[0] == "udpbulk" {
			return udpBulk(args[1], n)
		}
		return bulk(args[1], int64(n)<<20)
	case "dns":
		return dns(args[1], net.ParseIP(args[2]))
	case "lookup":
		return lookup(args[1])
	}
	return fmt.Errorf("no command %q", args[0])
}

// features prints what test/kernels/run makes a table of.
func features() {
	for _, f := range kernel.All() {
		has := "yes"
		if err := f.Check(); errors.Is(err, kernel.ErrUnknown) {
			has = "not tried"
		} else if err != nil {
			has = "no"
		}
		fmt.Printf("FEATURE %s: %s\n", f.Name, has)
	}
}

func lookup(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ips, err := (&net.Resolver{PreferGo: true}).LookupIP(ctx, "ip4", name)
	if err == nil {
		fmt.Println(ips)
	}
	return err
}
