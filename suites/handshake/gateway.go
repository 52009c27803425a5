package handshake

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/ipsec"
	"pqlab/ipsec/keying"
	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
)

// tunnelName is the tunnel that is attacked.
const tunnelName = "t1"

// gateway is one end of a tunnel as it is in a node, from the listening socket to the SAs: only the dataplane is not
// real, for it remembers.
type gateway struct {
	end     exchangetest.End
	name    string // of the tunnel that it begins exchanges for
	plane   *plane
	tunnels *ipsec.Tunnels
	tunnel  *ipsec.Tunnel
	service *keying.Service
	reports chan keying.Report

	listener net.Listener
	failed   chan error       // of each exchange that it answered in vain
	settled  chan ipsec.Event // of each exchange that it answered and that gave it SAs

	peer atomic.Pointer[way]
	wrap func(net.Conn) net.Conn // what its connections go through; nil is nothing
	half atomic.Bool             // its next write is its last
	last atomic.Pointer[halving] // its latest connection
}

// way connects to a peer.
type way func(context.Context) (net.Conn, error)

// open makes a gateway that answers at a port of its own until the spec is over.
func open(end exchangetest.End, tunnel string) *gateway {
	GinkgoHelper()
	g := &gateway{
		end: end, name: tunnel, plane: newPlane(),
		failed: make(chan error, 2*crowd), settled: make(chan ipsec.Event, 16), reports: make(chan keying.Report, 16),
	}
	g.tunnels = ipsec.NewTunnels(g.plane, nil, nil)
	g.service = keying.New(end.Endpoint, g.tunnels.Get, func(r keying.Report) {
		select {
		case g.reports <- r:
		default:
		}
	})
	g.service.Dial = func(ctx context.Context, _ keying.Peer) (net.Conn, error) {
		c, err := (*g.peer.Load())(ctx)
		if err != nil {
			return nil, err
		}
		return g.wrapped(c), nil
	}
	g.tunnel = g.add(tunnel, end.Config)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	g.listener = l

	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() { g.service.Serve(ctx, listener{l, g}, func(err error) { g.failed <- err }) })
	running.Go(func() {
		for e := range g.tunnels.Events() {
			if !e.Initiator && (e.Kind == ipsec.Established || e.Kind == ipsec.Rekeyed) {
				select {
				case g.settled <- e:
				default: // nobody asks
				}
			}
		}
	})
	DeferCleanup(func() {
		cancel()
		l.Close()
		g.tunnels.Close()
		running.Wait()
	})
	return g
}

// add gives the gateway a tunnel.
func (g *gateway) add(name string, cfg exchange.Config) *ipsec.Tunnel {
	GinkgoHelper()
	prefix, here := netip.MustParsePrefix, netip.MustParseAddr("127.0.0.1")
	g.service.Trust(keying.Peer{Tunnel: name, Remote: here, Config: cfg})
	t, err := g.tunnels.Add(ipsec.Config{
		Policy: ipsec.Policy{
			Tunnel: name, Local: []netip.Prefix{prefix("192.0.2.0/24")}, Remote: []netip.Prefix{prefix("198.51.100.0/24")},
			Src: here, Dst: here, PathMTU: 1500,
		},
		Keyer: g.service.Keyer(name),
	})
	Expect(err).NotTo(HaveOccurred())
	return t
}

// forget makes the tunnel as it was before its first exchange.
func (g *gateway) forget() {
	GinkgoHelper()
	Expect(g.tunnel.Close()).To(Succeed())
	g.tunnel = g.add(g.name, g.end.Config)
}

// goes makes the gateway begin its exchanges along w.
func (g *gateway) goes(w way) { g.peer.Store(&w) }

// connect is the way to this gateway.
func (g *gateway) connect(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", g.listener.Addr().String())
}

// wrapped is a connection of the gateway's, of either role.
func (g *gateway) wrapped(c net.Conn) net.Conn {
	h := &halving{Conn: c, at: &g.half}
	g.last.Store(h)
	if g.wrap != nil {
		return g.wrap(h)
	}
	return h
}

type listener struct {
	net.Listener
	gateway *gateway
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.gateway.wrapped(c), nil
}

// halving says after the write that follows at that it will send no more, so that the other side does not wait for it,
// and goes on listening.
type halving struct {
	net.Conn
	at *atomic.Bool
}

func (h *halving) Write(b []byte) (int, error) {
	n, err := h.Conn.Write(b)
	if h.at.CompareAndSwap(true, false) {
		h.end()
	}
	return n, err
}

func (h *halving) end() { h.Conn.(*net.TCPConn).CloseWrite() }

// verdict is what both ends say of an exchange.
type verdict struct{ initiator, responder error }

// meet has one gateway begin an exchange with another and waits until both are through with it. The one that answers is
// in no other exchange meanwhile.
func meet(ctx context.Context, from, to *gateway) verdict {
	GinkgoHelper()
	from.goes(to.connect)
	return along(ctx, from, to)
}

// along is meet by the way that the initiator has.
func along(ctx context.Context, from, to *gateway) (v verdict) {
	GinkgoHelper()
	v.initiator = from.tunnel.Rekey(ctx)
	v.responder = to.outcome(ctx)
	return v
}

// outcome is what became of the exchange that the gateway answered.
func (g *gateway) outcome(ctx context.Context) error {
	GinkgoHelper()
	select {
	case err := <-g.failed:
		return err
	case <-g.settled:
		return nil
	case <-ctx.Done():
		Fail("the responder is not through with the exchange")
		return ctx.Err()
	}
}

// pair makes two honest gateways that trust each other.
func pair(cfg exchange.Config) (a, b *gateway) {
	GinkgoHelper()
	x, y, err := exchangetest.Pair(cfg)
	Expect(err).NotTo(HaveOccurred())
	return open(x, tunnelName), open(y, tunnelName)
}

// twin makes a gateway with the identity and the trust of another: the other in the hands of an attacker.
func twin(of *gateway, change func(*exchangetest.End)) *gateway {
	GinkgoHelper()
	end := of.end
	change(&end)
	return open(end, of.name)
}

// unkeyed says that a gateway has no SA.
func unkeyed(g *gateway) {
	GinkgoHelper()
	in, out := g.plane.standing(g.name)
	Expect(len(in)).To(BeZero(), "inbound SAs")
	Expect(out == nil).To(BeTrue(), "no outbound SA")
	Expect(g.tunnel.Current()).To(Equal(ipsec.SPIPair{}))
}

// untouched says that gateways were never given an SA.
func untouched(gateways ...*gateway) {
	GinkgoHelper()
	for _, g := range gateways {
		unkeyed(g)
		Expect(g.plane.had(g.name)).To(Equal(given{}), "SAs that were installed")
	}
}

// keyed says that two gateways protect and accept each other's packets by the same keys.
func keyed(a, b *gateway, tunnel string) {
	GinkgoHelper()
	for _, way := range [][2]*gateway{{a, b}, {b, a}} {
		_, out := way[0].plane.standing(tunnel)
		Expect(out != nil).To(BeTrue(), "an outbound SA")
		in, _ := way[1].plane.standing(tunnel)
		same := 0
		for _, sa := range in {
			if sa.SPI == out.SPI && sa.Key == out.Key && sa.Salt == out.Salt {
				same++
			}
		}
		Expect(same).To(Equal(1), "the same SA at the other end")
	}
}

// succeeds says that an exchange came to an end at both ends.
func succeeds(v verdict) {
	GinkgoHelper()
	Expect(v.initiator).NotTo(HaveOccurred())
	Expect(v.responder).NotTo(HaveOccurred())
}

// stillWorks has two honest gateways key their tunnel, and makes them forget it.
func stillWorks(ctx context.Context, a, b *gateway) {
	GinkgoHelper()
	succeeds(meet(ctx, a, b))
	keyed(a, b, a.name)
	a.forget()
	b.forget()
}
