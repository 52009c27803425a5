package gateway

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"

	"pqlab/internal/offload"
	"pqlab/ipsec"
	"pqlab/ipsec/gateway/esp"
	"pqlab/ipsec/gateway/port"
)

const (
	receiveLen  = 65536 // bytes of one message: a packet, or as many as UDP_GRO joins
	controlLen  = 128
	udpMessages = 16 // received by one system call
	rawMessages = 64
)

// inbound reads one outer socket, opens and writes to the port, in one goroutine. Packets are decrypted where they were
// received, and written from there.
type inbound struct {
	g        *Gateway
	socket   *outer
	messages []mmsghdr
	iov      []unix.Iovec
	buf      []byte
	control  []byte
	join     offload.Coalescer
	port     *port.Writer
	errors   errorQueue

	// What holds for one batch.
	sas  map[uint32]*inboundSA
	last *inboundSA
}

func (g *Gateway) newInbound(socket *outer) *inbound {
	n := udpMessages
	if socket.encapsulation == ipsec.ESP {
		n = rawMessages
	}
	in := &inbound{
		g: g, socket: socket, port: g.port.Writer(),
		messages: make([]mmsghdr, n), iov: make([]unix.Iovec, n),
		buf: make([]byte, n*receiveLen), control: make([]byte, n*controlLen),
	}
	for i := range in.messages {
		in.iov[i].Base = &in.buf[i*receiveLen]
		in.iov[i].SetLen(receiveLen)
		m := &in.messages[i]
		m.Iov, m.Control = &in.iov[i], &in.control[i*controlLen]
		m.SetIovlen(1)
	}
	return in
}

// run ends when the socket's wakeup comes.
func (in *inbound) run() {
	defer close(in.socket.done)
	runtime.LockOSThread()
	for used := len(in.messages); ; {
		for i := range in.messages[:used] { // the kernel has overwritten it
			in.messages[i].SetControllen(controlLen)
		}
		n, err := recvmmsg(in.socket.fd, in.messages)
		used = n
		switch {
		case err == nil:
			in.batch(n)
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			events, ok := in.socket.stop.wait(in.socket.fd, unix.POLLIN)
			if !ok {
				return
			}
			if events&unix.POLLERR != 0 {
				in.errors.drain(in.g, in.socket)
			}
		default: // an ICMP error, reported once
			in.errors.drain(in.g, in.socket)
		}
	}
}

// batch handles n messages, and what they held leaves before it returns.
func (in *inbound) batch(n int) {
	in.sas, in.last = *in.g.inbound.Load(), nil
	for i := range in.messages[:n] {
		m := &in.messages[i]
		packets := in.buf[i*receiveLen:][:m.n]
		c := parseControl(in.control[i*controlLen:][:m.Controllen])
		if m.Flags&unix.MSG_TRUNC != 0 {
			in.g.drops.malformed.Add(1)
			continue
		}
		if in.socket.encapsulation == ipsec.ESP {
			in.raw(packets, c.tos)
			continue
		}
		size := c.segment
		if size <= 0 {
			size = len(packets)
		}
		for len(packets) > 0 {
			k := min(size, len(packets))
			in.udp(packets[:k], c.tos)
			packets = packets[k:]
		}
	}
	in.settle()
	if lost, _ := in.join.Flush(in.port); lost > 0 {
		in.g.drops.send.Add(uint64(lost))
	}
	in.sas, in.last = nil, nil // the next packet may be long in coming, and these hold keys
}

// raw handles what a raw socket receives: with the IP header in IPv4 (raw(7)), without it in IPv6 (RFC 3542).
func (in *inbound) raw(packet []byte, tos uint8) {
	if in.socket.local.Is4() {
		if len(packet) < 20 {
			in.g.drops.malformed.Add(1)
			return
		}
		packet = packet[min(int(packet[0]&15)*4, len(packet)):]
	}
	in.packet(packet, tos)
}

// udp tells ESP from what else comes to its port (RFC 3948 section 2): keepalives, and IKE after its non-ESP marker.
func (in *inbound) udp(packet []byte, tos uint8) {
	switch {
	case len(packet) == 1 && packet[0] == 0xff:
	case len(packet) >= 4 && esp.SPI(packet) == 0:
	default:
		in.packet(packet, tos)
	}
}

// packet opens one ESP packet and queues what was in it.
func (in *inbound) packet(packet []byte, tos uint8) {
	if len(packet) < 8 {
		in.g.drops.malformed.Add(1)
		return
	}
	spi := esp.SPI(packet)
	sa := in.last
	if sa == nil || sa.spi != spi {
		in.settle()
		// An SA is for the socket of its tunnel: another one's goroutine must not touch it.
		if sa = in.sas[spi]; sa == nil || sa.tunnel.socket != in.socket {
			in.g.drops.unknownSPI.Add(1)
			return
		}
		in.last = sa
	}
	t := sa.tunnel
	if sa.spent {
		t.drops.expired.Add(1)
		return
	}
	p, err := sa.Open(packet)
	if p.Len > 0 && err == nil && !sa.admit(p.Len, in.g.expiries) {
		t.drops.expired.Add(1)
		return
	}
	if p.Len > 0 {
		sa.count(p.Len, sa.Seq(), in.g.expiries)
	}
	switch {
	case err == nil:
	case errors.Is(err, esp.ErrReplay):
		t.drops.replay.Add(1)
		return
	case errors.Is(err, esp.ErrIntegrity):
		t.drops.integrity.Add(1)
		return
	default:
		t.drops.malformed.Add(1)
		return
	}
	if p.Next == esp.None {
		return // a dummy (RFC 4303 section 2.6)
	}
	inner, src, dst, ok := innerPacket(p)
	if !ok {
		t.drops.malformed.Add(1)
		return
	}
	if !t.policy.Protects(dst, src) {
		t.drops.policy.Add(1)
		return
	}
	ecn := innerTOS(inner) & 3
	after, ok := decapECN(ecn, tos)
	if !ok {
		t.drops.malformed.Add(1)
		return
	}
	if after != ecn {
		setECN(inner, after)
	}
	in.join.Add(inner)
}

// settle publishes the counters of the SA in hand.
func (in *inbound) settle() {
	if in.last != nil {
		in.last.publish()
	}
}

// innerPacket checks that a payload is the IP packet that its next header says, and cuts padding for traffic flow
// confidentiality off it (RFC 4303 section 2.7).
func innerPacket(p esp.Payload) (ip []byte, src, dst netip.Addr, ok bool) {
	src, dst, next, ok := addresses(p.Inner)
	if !ok || next != p.Next {
		return nil, src, dst, false
	}
	n := 0
	if next == esp.IPv4 {
		n = int(binary.BigEndian.Uint16(p.Inner[2:]))
		if n < int(p.Inner[0]&15)*4 {
			return nil, src, dst, false
		}
	} else {
		n = 40 + int(binary.BigEndian.Uint16(p.Inner[4:]))
	}
	if n > len(p.Inner) {
		return nil, src, dst, false
	}
	return p.Inner[:n], src, dst, true
}
