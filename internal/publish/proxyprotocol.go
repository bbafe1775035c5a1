package publish

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// The PROXY protocol, version 2 ("The PROXY protocol", section 2.2): a signature,
// version and command, family and transport, the length of the rest, and the
// addresses and ports of the client and of what it connected to.

const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyCommand   = 0x21 // version 2, PROXY
	proxyTCP4      = 0x11
	proxyTCP6      = 0x21
)

// proxyHeader returns the header of a connection.
func proxyHeader(client, local netip.AddrPort) []byte {
	from, to := client.Addr().Unmap(), local.Addr().Unmap()
	family := byte(proxyTCP4)
	if !from.Is4() || !to.Is4() {
		family = proxyTCP6
		from, to = netip.AddrFrom16(from.As16()), netip.AddrFrom16(to.As16())
	}
	addresses := slices.Concat(from.AsSlice(), to.AsSlice())
	addresses = binary.BigEndian.AppendUint16(addresses, client.Port())
	addresses = binary.BigEndian.AppendUint16(addresses, local.Port())

	header := append([]byte(proxySignature), proxyCommand, family)
	header = binary.BigEndian.AppendUint16(header, uint16(len(addresses)))
	return append(header, addresses...)
}
