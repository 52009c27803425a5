package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"pqlab/ipsec"
	"pqlab/suites/testlab"
)

// way is a direction through the tunnel, with a socket at each end of it.
type way struct {
	*rig
	sealer, opener string // nodes at which the tunnel ends
	from, to       socket
}

// socket is a UDP socket of a spec in a node.
type socket struct {
	*net.UDPConn
	at  netip.AddrPort
	rig *rig
}

// ways are the two directions between the hosts, or between the ends themselves where they are hosts.
func (r *rig) ways(ctx context.Context, v6 bool) []*way {
	GinkgoHelper()
	near, far := r.behind(ctx, r.gateway, v6), r.behind(ctx, r.kernel, v6)
	return []*way{{r, r.gateway, r.kernel, near, far}, {r, r.kernel, r.gateway, far, near}}
}

func (w *way) String() string { return "from " + w.sealer + " to " + w.opener }

// behind opens a socket at an address that an end protects.
func (r *rig) behind(ctx context.Context, end string, v6 bool) socket {
	GinkgoHelper()
	at := netip.AddrPortFrom(r.protected(end, v6), 0)
	c := testlab.Listen(ctx, r.Lab, r.host(end), at)
	return socket{c, c.LocalAddr().(*net.UDPAddr).AddrPort(), r}
}

// host is the node whose traffic an end protects.
func (r *rig) host(end string) string {
	if h := r.Node(end).Plan.Host; h != "" {
		return h
	}
	return end
}

// protected is the address that an end protects.
func (r *rig) protected(end string, v6 bool) netip.Addr {
	GinkgoHelper()
	plan := r.Node(r.host(end)).Plan
	addresses := plan.Inner
	if r.host(end) != end {
		addresses = plan.Interfaces[0].Addresses
	}
	for _, a := range addresses {
		if a.Addr().Is6() == v6 {
			return a.Addr()
		}
	}
	Fail(fmt.Sprintf("%s protects no %s address", end, version(v6)))
	return netip.Addr{}
}

func (s socket) send(to socket, payload []byte) {
	GinkgoHelper()
	_, err := s.WriteToUDPAddrPort(payload, to.at)
	Expect(err).NotTo(HaveOccurred())
}

// expect reads the next datagram, which is to be this one.
func (s socket) expect(payload []byte) {
	GinkgoHelper()
	s.receive(payload, nil)
}

// receive is expect, and gives what the kernel says beside the datagram as far as control has room.
func (s socket) receive(payload, control []byte) []byte {
	GinkgoHelper()
	Expect(s.SetReadDeadline(time.Now().Add(s.rig.patience))).To(Succeed())
	buf := make([]byte, 1<<16)
	n, nc, _, _, err := s.ReadMsgUDPAddrPort(buf, control)
	Expect(err).NotTo(HaveOccurred(), s.rig.tells)
	got := buf[:n] // of which Equal would print all
	Expect(bytes.Equal(got, payload)).To(BeTrue(), "received %d bytes %.64q, not %d bytes %.64q", len(got), got, len(payload), payload)
	return control[:nc]
}

// set sets an option of the address family's.
func (s socket) set(v4, v6, value int) {
	GinkgoHelper()
	Expect(s.option(func(fd int) error {
		if s.at.Addr().Is6() {
			return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, v6, value)
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, v4, value)
	})).To(Succeed())
}

func (s socket) option(f func(fd int) error) (err error) {
	GinkgoHelper()
	raw, errRaw := s.SyscallConn()
	Expect(errRaw).NotTo(HaveOccurred())
	Expect(raw.Control(func(fd uintptr) { err = f(int(fd)) })).To(Succeed())
	return err
}

// pass sends through the tunnel and waits for the arrival.
func (w *way) pass(payload []byte) {
	GinkgoHelper()
	w.from.send(w.to, payload)
	w.to.expect(payload)
}

// random is a payload that nothing else is.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

const markLen = 64

func mark() []byte { return random(markLen) }

// headers are the bytes of the UDP and IP headers around a payload.
func (w *way) headers() int {
	if w.from.at.Addr().Is6() {
		return 40 + 8
	}
	return 20 + 8
}

// sealed is the length of the ESP packet around a payload.
func (w *way) sealed(payload int) int { return 8 + 8 + (w.headers()+payload+2+3)/4*4 + 16 }

// outerSource is the address that the sealer's ESP packets come from.
func (w *way) outerSource() netip.Addr {
	if w.sealer == w.tunnel.Plan.A.Node {
		return w.tunnel.Plan.OuterA
	}
	return w.tunnel.Plan.OuterB
}

// held sends payloads of one length over a fibre that loses everything but for the recording, and returns the ESP packets,
// which the opener has never seen.
func (w *way) held(ctx context.Context, payloads ...[]byte) (o testlab.Outer, packets [][]byte) {
	GinkgoHelper()
	recording := testlab.Record(w.Lab, fibreLink)
	restore := testlab.Divert(w.Lab, fibreLink, w.sealer)
	for _, payload := range payloads {
		Expect(payload).To(HaveLen(len(payloads[0])))
		w.from.send(w.to, payload)
	}
	o, packets = recording.ESP(ctx, w.outerSource(), w.sealed(len(payloads[0])), len(payloads))
	restore()
	return o, packets
}

// injector sends in the sealer's place.
func (w *way) injector() *testlab.Injector {
	GinkgoHelper()
	return testlab.Inject(w.Lab, fibreLink, w.sealer)
}

// room is the largest inner packet that passes.
func (w *way) room() int {
	p := ipsec.Policy{Dst: w.tunnel.Plan.OuterB}
	if w.protocol50 {
		p.Encapsulation = ipsec.ESP
	}
	return p.InnerMTU(w.tunnel.Plan.MTU)
}
