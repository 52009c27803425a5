package gateway

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"pqlab/ipsec"
)

// Limits of a batch: of the kernel (UDP_MAX_SEGMENTS, and an IP packet's length less its headers).
const (
	maxSegments = 64
	maxBatch    = 65535 - 40 - 8 // bytes
)

// maxReported is how many errors of earlier packets may be met while one batch is sent. The kernel reports each in place of
// sending once; an error that comes back more often is of this batch's own path.
const maxReported = 16

// batch is a run of ESP packets that leave by one system call: to one peer, with one TOS, all of one size but the last,
// which may be shorter. They lie one after the other.
type batch struct {
	tunnel   *tunnel
	tos      uint8
	buf      []byte
	used     int
	size     int // of the first packet
	count    int
	short    bool // the last packet is shorter: nothing can follow
	reported int  // errors that were taken for those of earlier packets
	control  []byte
	messages []mmsghdr
	iov      []unix.Iovec
}

func newBatch() batch {
	return batch{
		buf:      make([]byte, maxBatch),
		control:  make([]byte, unix.CmsgSpace(4)+unix.CmsgSpace(2)),
		messages: make([]mmsghdr, maxSegments),
		iov:      make([]unix.Iovec, maxSegments),
	}
}

// room returns space for a packet of n bytes, after sending the run if the packet cannot join it.
func (b *batch) room(t *tunnel, tos uint8, n int) []byte {
	if b.count > 0 && (b.tunnel != t || b.tos != tos || b.short || n > b.size || b.count == maxSegments || b.used+n > maxBatch) {
		b.flush()
	}
	b.tunnel, b.tos = t, tos
	return b.buf[b.used : b.used+n]
}

// commit adds the packet of n bytes that was written to room's space.
func (b *batch) commit(n int) {
	if b.count == 0 {
		b.size = n
	}
	b.short = n < b.size
	b.used += n
	b.count++
}

// flush sends the run.
func (b *batch) flush() {
	if b.count == 0 {
		return
	}
	b.reported = 0
	if b.tunnel.policy.Encapsulation == ipsec.UDP && !b.tunnel.socket.noGSO.Load() {
		b.sendJoined()
	} else {
		b.sendEach()
	}
	b.used, b.count, b.short = 0, 0, false
}

// sendJoined gives the run to the kernel as one UDP super-packet.
func (b *batch) sendJoined() {
	control := b.prepare(0, 0, b.used)
	if b.count > 1 {
		var size [2]byte
		binary.NativeEndian.PutUint16(size[:], uint16(b.size))
		control = putControl(b.control, control, unix.SOL_UDP, unix.UDP_SEGMENT, size[:])
		b.messages[0].SetControllen(control)
	}
	_, err := b.send(b.messages[:1])
	switch {
	case err == nil:
	case b.count > 1 && errors.Is(err, unix.EIO): // the device computes no checksums, so the kernel does not cut
		b.tunnel.socket.noGSO.Store(true)
		b.sendEach()
	case b.count > 1 && (errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EINVAL)):
		// The path MTU has shrunk: sent alone, each packet makes the kernel tell us what it is (see Gateway.learnPath).
		b.sendEach()
	default:
		b.lose(err, b.count)
	}
}

// sendEach gives the run to the kernel packet by packet, still by one system call.
func (b *batch) sendEach() {
	b.reported = 0 // none of them was met by these packets
	for i, at := 0, 0; i < b.count; i++ {
		n := min(b.size, b.used-at)
		b.prepare(i, at, n)
		at += n
	}
	for i := 0; i < b.count; {
		n, err := b.send(b.messages[i:b.count])
		i += n
		if err != nil {
			b.lose(err, 1)
			i++
		}
	}
}

// prepare makes message i carry the n bytes at offset at, and returns the length of its control data.
func (b *batch) prepare(i, at, n int) int {
	m := &b.messages[i]
	b.tunnel.peer.setName(&m.Msghdr)
	b.iov[i].Base = &b.buf[at]
	b.iov[i].SetLen(n)
	m.Iov = &b.iov[i]
	m.SetIovlen(1)
	var value [4]byte
	binary.NativeEndian.PutUint32(value[:], uint32(b.tos))
	level, kind := int32(unix.IPPROTO_IP), int32(unix.IP_TOS)
	if b.tunnel.policy.Dst.Is6() {
		level, kind = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
	}
	control := putControl(b.control, 0, level, kind, value[:])
	m.Control = &b.control[0]
	m.SetControllen(control)
	return control
}

// send sends messages, and returns how many it sent, or why it could not send the first. It waits while the socket's
// buffer is full, which slows the sender down as an interface does.
func (b *batch) send(messages []mmsghdr) (int, error) {
	socket := b.tunnel.socket
	socket.sending.RLock()
	defer socket.sending.RUnlock()
	for {
		n, err := socket.send(messages)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if _, ok := socket.stop.wait(socket.fd, unix.POLLOUT); !ok {
				return 0, err
			}
		case reportable(err) && b.reported < maxReported:
			b.reported++
		default:
			return 0, err
		}
	}
}

// reportable says whether an error may be one that an earlier packet met: what the kernel makes of ICMP (icmp_err_convert in
// net/ipv4/icmp.c, icmpv6_err_convert in net/ipv6/icmp.c). Some of them it also says of the packet in hand.
func reportable(err error) bool {
	switch err {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENONET, unix.EACCES, unix.EMSGSIZE,
		unix.ENOPROTOOPT, unix.EOPNOTSUPP, unix.EPROTO:
		return true
	}
	return false
}

// lose counts n packets that were not sent.
func (b *batch) lose(err error, n int) {
	if errors.Is(err, unix.EMSGSIZE) {
		b.tunnel.drops.tooBig.Add(uint64(n))
		return
	}
	b.tunnel.drops.send.Add(uint64(n))
}
