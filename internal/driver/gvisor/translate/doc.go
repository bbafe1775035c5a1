// Package translate carries TCP connections of a namespace without a TCP stack.
//
// # Theory of operation
//
// A connection of the namespace is joined with one socket of the host. What a segment
// carries is written to the socket, and what the socket has to read is put into
// segments; the numbers of the segments are translated to positions in the two byte
// streams, and back. Congestion control, the retransmission on the way to the peer and
// its timers are the work of the host's kernel. The way between the namespace and this
// package is a queue of one machine, which hardly ever loses a segment, so there is no
// congestion control on it, and what it loses is found by a timer or by three
// acknowledgements in a row.
//
//	namespace             translate                        host
//	 SYN       --->  [opening]   socket, connect  --->
//	 SYN-ACK   <---  [accepted]                   <---  it is up
//	 ACK       --->  [open]
//	 data      --->  rcvNxt      send(2)          --->
//	                 unsent: what the socket did not take; the offered window shrinks
//	 data      <---  sndNxt      recv(2)          <---
//	                 sent: kept until the namespace acknowledges it
//	 FIN       --->  finGot      shutdown(2)      --->
//	 FIN       <---  finSent                      <---  end of file
//
// A Call is a connection to the namespace, which a SYN from here begins.
//
// # States (RFC 9293, 3.3.2)
//
//	state     from the namespace                         from the host's socket
//	opening   SYN again: nothing; RST: ended             up: SYN-ACK, accepted; refused: RST, ended;
//	                                                     unreachable: ICMP, ended; 30 s: ended
//	accepted  ACK: open; SYN again: SYN-ACK;             (is not read yet)
//	          RST: ended; 3 s: both reset
//	calling   SYN-ACK: open; RST, ICMP: refused;         (is not read yet)
//	          ACK of another connection: RST, and SYN
//	          again; 30 s: refused
//	open      data, FIN: to the socket; RST: the socket  data, end of file: segments; error: RST, ended
//	          is reset, ended; SYN: acknowledged, so     both FINs, and ours acknowledged: ended
//	          that a peer which has forgotten the
//	          connection resets it (RFC 5961, 4)
//
// An ended connection is forgotten at once. TIME-WAIT is for segments that come late,
// and a queue delivers in order; if the last acknowledgement was lost, the namespace
// repeats its FIN and gets a reset, when its program has long closed the connection.
//
// A RST after the FIN of the namespace, with nothing that it has not acknowledged, says
// that it has forgotten the connection: what it has sent still goes to the host.
//
// A RST counts only if its number is the next expected (RFC 5961, 3). Urgent data stays
// in the stream, as with SO_OOBINLINE. What comes out of order is not kept: the
// namespace repeats it.
//
// # Acknowledgements
//
// Data is acknowledged at the end of a round of frames, once for all. If a connection
// takes turns with requests and replies, the acknowledgement is held back for a few
// milliseconds, since the reply will carry it (RFC 1122, 4.2.3.2).
//
// # Turns
//
// A Translator, and all of its connections, belong to one goroutine at a time, whose
// caller sees to that. Nothing is locked.
package translate
