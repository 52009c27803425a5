package testlab

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"pqlab/lab"
)

// Mailbox is a UDP socket of a spec in a node.
type Mailbox struct {
	*net.UDPConn
	At netip.AddrPort
}

// Open opens a Mailbox at an address of a node, until the spec ends. When ctx ends nothing waits at it any longer.
func Open(ctx context.Context, l *lab.Lab, node string, at netip.Addr) Mailbox {
	GinkgoHelper()
	c := Listen(ctx, l, node, netip.AddrPortFrom(at, 0))
	return Mailbox{c, c.LocalAddr().(*net.UDPAddr).AddrPort()}
}

// Headers are the bytes of the UDP and IP headers around what it sends.
func (m Mailbox) Headers() int {
	if m.At.Addr().Is6() {
		return 40 + 8
	}
	return 20 + 8
}

// Send sends a datagram.
func (m Mailbox) Send(to Mailbox, payload []byte) {
	GinkgoHelper()
	_, err := m.WriteToUDPAddrPort(payload, to.At)
	Expect(err).NotTo(HaveOccurred())
}

// Expect reads the next datagram, which is to be this one. explain is as in Gomega, for where none comes.
func (m Mailbox) Expect(payload []byte, explain ...any) {
	GinkgoHelper()
	m.receive(payload, nil, explain)
}

// Pass sends a datagram and waits for its arrival.
func Pass(from, to Mailbox, payload []byte) {
	GinkgoHelper()
	from.Send(to, payload)
	to.Expect(payload)
}

func (m Mailbox) receive(payload, control []byte, explain []any) []byte {
	GinkgoHelper()
	buf := make([]byte, 1<<16)
	n, nc, _, _, err := m.ReadMsgUDPAddrPort(buf, control)
	Expect(err).NotTo(HaveOccurred(), explain...)
	got := buf[:n] // of which Equal would print all
	Expect(bytes.Equal(got, payload)).To(BeTrue(), "received %d bytes %.64q, not %d bytes %.64q", len(got), got, len(payload), payload)
	return control[:nc]
}

// Set sets an option of the socket's address family.
func (m Mailbox) Set(v4, v6, value int) {
	GinkgoHelper()
	Expect(m.Option(func(fd int) error {
		if m.At.Addr().Is6() {
			return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, v6, value)
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, v4, value)
	})).To(Succeed())
}

// Option gives f the socket's descriptor.
func (m Mailbox) Option(f func(fd int) error) (err error) {
	GinkgoHelper()
	raw, errRaw := m.SyscallConn()
	Expect(errRaw).NotTo(HaveOccurred())
	Expect(raw.Control(func(fd uintptr) { err = f(int(fd)) })).To(Succeed())
	return err
}

// PathMTU is the size of IP packet that the socket's kernel believes to pass to another one. It connects the socket anew,
// because the kernel tells it of connected sockets only, and looks the route up then.
func (m Mailbox) PathMTU(to Mailbox) (mtu int) {
	GinkgoHelper()
	var at unix.Sockaddr
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	if a := to.At.Addr(); a.Is6() {
		at, level, option = &unix.SockaddrInet6{Port: int(to.At.Port()), Addr: a.As16()}, unix.IPPROTO_IPV6, unix.IPV6_MTU
	} else {
		at = &unix.SockaddrInet4{Port: int(to.At.Port()), Addr: a.As4()}
	}
	Expect(m.Option(func(fd int) (err error) {
		if err := unix.Connect(fd, at); err != nil {
			return err
		}
		mtu, err = unix.GetsockoptInt(fd, level, option)
		return err
	})).To(Succeed())
	return mtu
}

// ShowMarks makes the socket tell the TOS field or traffic class of what it receives, for ExpectMarked. SetMark sets that of
// what it sends.
func (m Mailbox) ShowMarks()        { GinkgoHelper(); m.Set(unix.IP_RECVTOS, unix.IPV6_RECVTCLASS, 1) }
func (m Mailbox) SetMark(tos uint8) { GinkgoHelper(); m.Set(unix.IP_TOS, unix.IPV6_TCLASS, int(tos)) }

// ExpectMarked is Expect of a datagram with this TOS field or traffic class.
func (m Mailbox) ExpectMarked(payload []byte, tos uint8, explain ...any) {
	GinkgoHelper()
	messages, err := unix.ParseSocketControlMessage(m.receive(payload, make([]byte, 64), explain))
	Expect(err).NotTo(HaveOccurred())
	Expect(messages).To(HaveLen(1))
	got := messages[0].Data[0]
	if m.At.Addr().Is6() {
		got = byte(binary.NativeEndian.Uint32(messages[0].Data))
	}
	Expect(got).To(Equal(tos), "field of the inner packet")
}

// Random is a payload that nothing else is.
func Random(n int) []byte {
	b := make([]byte, n)
	crand.Read(b)
	return b
}

// Mark is a payload that no capture shows by chance. All have one length.
func Mark() []byte { return Random(64) }

// Seeded draws what the seed of the run says, so that a failure can be had again with -ginkgo.seed.
func Seeded() *rand.Rand { return rand.New(rand.NewPCG(uint64(GinkgoRandomSeed()), 1)) }
