package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
	"pqlab/lab"
	"pqlab/topology"
)

// hand is a tunnel made by iproute2: SAs and policies, with an xfrm interface and a route into it where pqlab takes one, and
// nothing more. With policies alone the kernel gives TCP no segmentation offload (sk_setup_caps in net/core/sock.c), which
// would make it the slower one. It goes with the lab.
type hand struct {
	lab     *lab.Lab
	plan    topology.PlannedTunnel
	sockets []io.Closer // of UDP encapsulation
}

// handError says that there is no tunnel made by hand.
type handError struct{ err error }

func (e *handError) Error() string { return "no tunnel by hand: " + e.err.Error() }
func (e *handError) Unwrap() error { return e.err }

// SPIs of a hand-made tunnel, from A to B and back.
const (
	spiAB = 0x1000
	spiBA = 0x2000
)

// makeByHand makes the tunnel of plan in a lab that has the nodes and links for it, and not the tunnel.
// The error is a *handError unless ctx has ended.
func makeByHand(ctx context.Context, l *lab.Lab, plan topology.PlannedTunnel, iface bool) (_ *hand, err error) {
	ip, err := find("ip", "/usr/sbin/ip", "/sbin/ip") // not everybody has it in their path
	if err != nil {
		return nil, &handError{err}
	}
	var keys [2][36]byte // AES-256 and salt
	for i := range keys {
		rand.Read(keys[i][:])
	}
	h := &hand{lab: l, plan: plan}
	defer func() {
		clear(keys[:])
		if err != nil {
			h.close()
		}
	}()
	for _, atA := range []bool{true, false} {
		name, local := plan.A.Node, plan.OuterA
		if !atA {
			name, local = plan.B.Node, plan.OuterB
		}
		if err := l.Node(name).Namespace().Do(func() error {
			if plan.Encapsulation != "esp" {
				socket, err := encapsulation(local)
				if err != nil {
					return err
				}
				h.sockets = append(h.sockets, socket)
			}
			// By standard input: arguments are seen by everybody.
			cmd := exec.CommandContext(ctx, ip, "-batch", "-")
			cmd.Stdin = strings.NewReader(byHand(plan, iface, atA, keys))
			if text, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s xfrm: %w: %s", ip, err, strings.TrimSpace(string(text)))
			}
			return nil
		}); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, &handError{fmt.Errorf("node %s: %w", name, err)}
		}
	}
	return h, nil
}

// find finds iproute2.
func find(names ...string) (string, error) {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("ip is not installed (Debian package iproute2)")
}

// byHand is what iproute2 is told at one end: the SAs that pqlab would make, a policy for each pair of subnets, and the
// interface.
func byHand(t topology.PlannedTunnel, iface, atA bool, keys [2][36]byte) string {
	var s strings.Builder
	with := ""
	if iface {
		with = " if_id 1"
		local, remote, src, dst, encapsulation := t.A.Subnets, t.B.Subnets, t.OuterA, t.OuterB, ipsec.UDP
		if !atA {
			local, remote, src, dst = remote, local, dst, src
		}
		if t.Encapsulation == "esp" {
			encapsulation = ipsec.ESP
		}
		p := ipsec.Policy{Src: src, Dst: dst, Encapsulation: encapsulation}
		fmt.Fprintf(&s, "link add esp0 type xfrm if_id 1\nlink set esp0 up mtu %d\n", p.InnerMTU(t.MTU))
		for _, w := range between(local, remote) {
			fmt.Fprintf(&s, "route replace %v dev esp0 src %v\n", w[1], w[0].Addr())
		}
	}
	state := func(src, dst netip.Addr, spi uint32, key [36]byte) {
		fmt.Fprintf(&s, "xfrm state add src %v dst %v proto esp spi %#x reqid 1 mode tunnel replay-window %d flag af-unspec esn%s",
			src, dst, spi, xfrmnl.MaxWindow, with)
		if t.Encapsulation != "esp" {
			address := netip.IPv4Unspecified()
			if src.Is6() {
				address = netip.IPv6Unspecified()
			}
			fmt.Fprintf(&s, " encap espinudp %d %d %v", ipsec.UDPPort, ipsec.UDPPort, address)
		}
		fmt.Fprintf(&s, " aead rfc4106(gcm(aes)) %#x 128\n", key)
	}
	state(t.OuterA, t.OuterB, spiAB, keys[0])
	state(t.OuterB, t.OuterA, spiBA, keys[1])
	policies := func(from, to []netip.Prefix, src, dst netip.Addr, hooks ...string) {
		for _, hook := range hooks {
			for _, w := range between(from, to) {
				fmt.Fprintf(&s, "xfrm policy add src %v dst %v dir %s%s tmpl src %v dst %v proto esp reqid 1 mode tunnel\n", w[0], w[1], hook, with, src, dst)
			}
		}
	}
	here, there := []string{"out"}, []string{"in", "fwd"}
	if !atA {
		here, there = there, here
	}
	policies(t.A.Subnets, t.B.Subnets, t.OuterA, t.OuterB, here...)
	policies(t.B.Subnets, t.A.Subnets, t.OuterB, t.OuterA, there...)
	return s.String()
}

// between gives the pairs of subnets of one family.
func between(from, to []netip.Prefix) (pairs [][2]netip.Prefix) {
	for _, a := range from {
		for _, b := range to {
			if a.Addr().Is4() == b.Addr().Is4() {
				pairs = append(pairs, [2]netip.Prefix{a, b})
			}
		}
	}
	return pairs
}

// encapsulation is the socket out of which the kernel takes ESP in UDP, which iproute2 cannot open. It is in the namespace
// of the calling thread.
func encapsulation(local netip.Addr) (io.Closer, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		return errors.Join(raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_ENCAP, unix.UDP_ENCAP_ESPINUDP)
		}), err)
	}}
	return c.ListenPacket(context.Background(), "udp", netip.AddrPortFrom(local, ipsec.UDPPort).String())
}

// send measures a flow, in bit/s, and sees that the tunnel carried it.
func (h *hand) send(ctx context.Context, f topology.PlannedFlow, d time.Duration) (float64, error) {
	before, err := h.carried()
	if err != nil {
		return 0, err
	}
	r, err := h.lab.Send(ctx, f, d)
	if err != nil {
		return 0, err
	}
	after, err := h.carried()
	if err == nil && after-before < r.Bytes {
		err = fmt.Errorf("the tunnel made by hand carried %d bytes of %d", after-before, r.Bytes)
	}
	return r.BitsPerSecond, err
}

// carried is how many bytes B received under its SA.
func (h *hand) carried() (bytes uint64, err error) {
	err = h.lab.Node(h.plan.B.Node).Namespace().Do(func() error {
		c, err := xfrmnl.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		s, err := c.GetSA(h.plan.OuterB, spiAB)
		bytes = s.Bytes
		return err
	})
	return bytes, err
}

func (h *hand) close() {
	for _, s := range h.sockets {
		s.Close()
	}
}
