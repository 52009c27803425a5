// Package gateways makes the ends of a tunnel for specs of its key exchange. They are real from the listening socket to the
// SAs (keying, exchange, ipsec). Only the dataplane is not, for it remembers: so "no SA" means that none was handed
// over, and not that an error was returned.
package gateways

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
	"pqlab/suites/testlab"
)

// TunnelName is the tunnel of those that Pair makes.
const TunnelName = "t1"

// Gateway is one end of a tunnel.
type Gateway struct {
	End     exchangetest.End
	Name    string // of the tunnel that it begins exchanges for
	Plane   *Plane
	Tunnel  *ipsec.Tunnel
	Reports chan keying.Report
	Failed  chan error              // of each exchange that it answered in vain
	Settled chan ipsec.Event        // of each exchange that it answered and that gave it SAs
	Wrap    func(net.Conn) net.Conn // what its connections go through; nil is nothing

	tunnels  *ipsec.Tunnels
	service  *keying.Service
	listener net.Listener

	peer atomic.Pointer[Way]
	half atomic.Bool             // its next write is its last
	last atomic.Pointer[halving] // its latest connection
}

// Way connects to a peer.
type Way func(context.Context) (net.Conn, error)

// most failed exchanges that nobody has asked for yet.
const most = 2000

// Open makes a gateway that answers at a port of its own until the spec is over.
func Open(end exchangetest.End, tunnel string) *Gateway {
	GinkgoHelper()
	g := &Gateway{
		End: end, Name: tunnel, Plane: newPlane(),
		Failed: make(chan error, most), Settled: make(chan ipsec.Event, 16), Reports: make(chan keying.Report, 16),
	}
	g.tunnels = ipsec.NewTunnels(g.Plane, nil, nil)
	g.service = keying.New(end.Endpoint, g.tunnels.Get, func(r keying.Report) {
		select {
		case g.Reports <- r:
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
	g.Tunnel = g.Add(tunnel, end.Config)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	g.listener = l

	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() { g.service.Serve(ctx, listener{l, g}, func(err error) { g.Failed <- err }) })
	running.Go(func() {
		for e := range g.tunnels.Events() {
			if !e.Initiator && (e.Kind == ipsec.Established || e.Kind == ipsec.Rekeyed) {
				select {
				case g.Settled <- e:
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

// Add gives the gateway a tunnel.
func (g *Gateway) Add(name string, cfg exchange.Config) *ipsec.Tunnel {
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

// Forget makes the tunnel as it was before its first exchange.
func (g *Gateway) Forget() {
	GinkgoHelper()
	Expect(g.Tunnel.Close()).To(Succeed())
	g.Tunnel = g.Add(g.Name, g.End.Config)
}

// Goes makes the gateway begin its exchanges along w.
func (g *Gateway) Goes(w Way) { g.peer.Store(&w) }

// Connect is the way to this gateway.
func (g *Gateway) Connect(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", g.listener.Addr().String())
}

// wrapped is a connection of the gateway's, of either role.
func (g *Gateway) wrapped(c net.Conn) net.Conn {
	h := &halving{Conn: c, at: &g.half}
	g.last.Store(h)
	if g.Wrap != nil {
		return g.Wrap(h)
	}
	return h
}

type listener struct {
	net.Listener
	gateway *Gateway
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

// EndAfterWrite makes the gateway's next write its last: its peer does not wait for more, and is still listened to.
func (g *Gateway) EndAfterWrite() { g.half.Store(true) }

// EndWrites makes the gateway write no more on its latest connection.
func (g *Gateway) EndWrites() { g.last.Load().end() }

func (h *halving) end() { h.Conn.(*net.TCPConn).CloseWrite() }

// Verdict is what both ends say of an exchange.
type Verdict struct{ Initiator, Responder error }

// Meet has one gateway begin an exchange with another and waits until both are through with it. The one that answers is
// in no other exchange meanwhile.
func Meet(ctx context.Context, from, to *Gateway) Verdict {
	GinkgoHelper()
	from.Goes(to.Connect)
	return Along(ctx, from, to)
}

// Along is Meet by the way that the initiator has.
func Along(ctx context.Context, from, to *Gateway) (v Verdict) {
	GinkgoHelper()
	v.Initiator = from.Tunnel.Rekey(ctx)
	v.Responder = to.Outcome(ctx)
	return v
}

// Outcome is what became of the exchange that the gateway answered.
func (g *Gateway) Outcome(ctx context.Context) error {
	GinkgoHelper()
	select {
	case err := <-g.Failed:
		return err
	case <-g.Settled:
		return nil
	case <-ctx.Done():
		Fail("the responder is not through with the exchange")
		return ctx.Err()
	}
}

// Failure is the next exchange that the gateway answered in vain.
func (g *Gateway) Failure(ctx context.Context) error {
	GinkgoHelper()
	select {
	case err := <-g.Failed:
		return err
	case <-ctx.Done():
		Fail("no exchange failed")
		return nil
	}
}

// Pair makes two honest gateways that trust each other. Where cfg has no deadline, it is one that a busy machine keeps.
func Pair(cfg exchange.Config) (a, b *Gateway) {
	GinkgoHelper()
	if cfg.Deadline == 0 {
		cfg.Deadline = testlab.Unstalled
	}
	x, y, err := exchangetest.Pair(cfg)
	Expect(err).NotTo(HaveOccurred())
	return Open(x, TunnelName), Open(y, TunnelName)
}

// Twin makes a gateway with the identity and the trust of another: the other in the hands of an attacker.
func Twin(of *Gateway, change func(*exchangetest.End)) *Gateway {
	GinkgoHelper()
	end := of.End
	change(&end)
	return Open(end, of.Name)
}

// Unkeyed says that a gateway has no SA.
func Unkeyed(g *Gateway) {
	GinkgoHelper()
	in, out := g.Plane.Standing(g.Name)
	Expect(len(in)).To(BeZero(), "inbound SAs")
	Expect(out == nil).To(BeTrue(), "no outbound SA")
	Expect(g.Tunnel.Current()).To(Equal(ipsec.SPIPair{}))
}

// Untouched says that gateways were never given an SA.
func Untouched(gateways ...*Gateway) {
	GinkgoHelper()
	for _, g := range gateways {
		Unkeyed(g)
		Expect(g.Plane.Had(g.Name)).To(Equal(Given{}), "SAs that were installed")
	}
}

// Keyed says that two gateways protect and accept each other's packets by the same keys.
func Keyed(a, b *Gateway, tunnel string) {
	GinkgoHelper()
	for _, way := range [][2]*Gateway{{a, b}, {b, a}} {
		_, out := way[0].Plane.Standing(tunnel)
		Expect(out != nil).To(BeTrue(), "an outbound SA")
		in, _ := way[1].Plane.Standing(tunnel)
		same := 0
		for _, sa := range in {
			if sa.SPI == out.SPI && sa.Key == out.Key && sa.Salt == out.Salt {
				same++
			}
		}
		Expect(same).To(Equal(1), "the same SA at the other end")
	}
}

// Succeeds says that an exchange came to an end at both ends.
func Succeeds(v Verdict) {
	GinkgoHelper()
	Expect(v.Initiator).NotTo(HaveOccurred())
	Expect(v.Responder).NotTo(HaveOccurred())
}

// StillWorks has two honest gateways key their tunnel, and makes them forget it.
func StillWorks(ctx context.Context, a, b *Gateway) {
	GinkgoHelper()
	Succeeds(Meet(ctx, a, b))
	Keyed(a, b, a.Name)
	a.Forget()
	b.Forget()
}
