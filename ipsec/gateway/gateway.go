// Package gateway is a dataplane in user space: ESP tunnel mode (RFC 4303) with AES-256-GCM (RFC 4106) for kernels that
// have none. It needs no privilege outside of the network namespace that it works in.
//
// The kernel routes what is to be protected into an inner port (package port); one goroutine reads it, seals and sends.
// One goroutine for each outer socket receives, opens and writes to the port. Nothing queues between them: the kernel's
// buffers do. Packets travel in super-packets wherever the kernel takes them (package offload).
package gateway

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/ipsec"
	"pqlab/ipsec/expiry"
	"pqlab/ipsec/gateway/port"
	"pqlab/ipsec/plaintext"
	"pqlab/ipsec/route"
)

// Config of a Gateway. The zero value is useful.
type Config struct {
	Port      port.Kind        // of the inner port; empty means port.Auto
	Interface string           // its name in the node, at most 11 bytes; empty means "esp0"
	Namespace *netns.Namespace // to work in; nil means the process's own. The caller keeps it open until Close
}

// Gateway is an ipsec.Dataplane.
//
// It wipes the keys that it is given as soon as the cipher has expanded them. What the cipher keeps inside cannot be
// reached: it goes with the garbage collector when the SA is removed.
type Gateway struct {
	config   Config
	netlink  *netlink.Handle
	port     *port.Port
	expiries *expiry.Queue
	drops    drops // of no tunnel
	stop     wakeup

	// What the packet loops read; replaced as a whole.
	table   atomic.Pointer[table]
	inbound atomic.Pointer[map[uint32]*inboundSA]

	loop       sync.WaitGroup // the port's reader
	background sync.WaitGroup // short jobs that the loops leave to others

	mu      sync.Mutex // guards what follows, and makes changes one after the other
	closed  bool
	tunnels map[string]*tunnel
	sockets map[endpoint]*outer
	routes  *route.Table
	filter  *plaintext.Filter
	mtu     int // of the port's interface
}

var _ ipsec.Dataplane = (*Gateway)(nil)

// filterTable is the nftables table.
const filterTable = "pqlab_gateway"

// New makes the inner port and the packet filter, and starts. Without tunnels it carries nothing.
func New(c Config) (*Gateway, error) {
	if c.Interface == "" {
		c.Interface = "esp0"
	}
	g := &Gateway{
		config: c, expiries: expiry.NewQueue(), stop: wakeup{-1},
		tunnels: map[string]*tunnel{}, sockets: map[endpoint]*outer{},
	}
	g.table.Store(newTable(nil))
	g.inbound.Store(&map[uint32]*inboundSA{})
	if err := g.inside(g.open); err != nil {
		g.expiries.Close()
		return nil, errors.Join(fmt.Errorf("gateway: %w", err), g.release())
	}
	g.loop.Go(g.newOutbound().run)
	return g, nil
}

// inside runs f in the gateway's namespace.
func (g *Gateway) inside(f func() error) error {
	if g.config.Namespace == nil {
		return f()
	}
	return g.config.Namespace.Do(f)
}

func (g *Gateway) open() (err error) {
	if g.stop, err = newWakeup(); err != nil {
		return err
	}
	if g.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	if g.port, err = port.Open(g.config.Port, g.config.Interface, g.netlink); err != nil {
		return err
	}
	if g.filter, err = plaintext.New(filterTable, plaintext.Through(g.port.Index())); err != nil {
		return err
	}
	g.routes = route.New(g.netlink)
	return g.port.Up(g.netlink)
}

// release undoes open, as far as it came.
func (g *Gateway) release() error {
	var errs []error
	if g.routes != nil {
		errs = append(errs, g.routes.Close())
	}
	if g.filter != nil {
		errs = append(errs, g.filter.Close())
	}
	if g.port != nil {
		errs = append(errs, g.port.Close())
	}
	if g.netlink != nil {
		g.netlink.Close()
	}
	if g.stop.fd >= 0 {
		errs = append(errs, g.stop.close())
	}
	return errors.Join(errs...)
}

// Name is "gateway/tun" or "gateway/packet".
func (g *Gateway) Name() string { return "gateway/" + string(g.port.Kind()) }

// Expiries delivers each limit that an SA reaches, and is closed by Close.
func (g *Gateway) Expiries() <-chan ipsec.Expiry { return g.expiries.Out }

// Close removes everything that the gateway made. A second Close does nothing.
func (g *Gateway) Close() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil
	}
	g.closed = true
	g.mu.Unlock()

	var errs []error
	g.stop.wake()
	for _, s := range g.sockets {
		s.stop.wake()
	}
	g.loop.Wait()
	for _, s := range g.sockets {
		errs = append(errs, s.close())
	}
	g.background.Wait()
	g.expiries.Close() // when nobody has anything to tell any more
	g.table.Store(newTable(nil))
	g.inbound.Store(&map[uint32]*inboundSA{})
	clear(g.tunnels)
	clear(g.sockets)
	errs = append(errs, g.release())
	return errors.Join(errs...)
}

// AddTunnel installs a policy. From its return on no plaintext between the policy's subnets enters or leaves.
func (g *Gateway) AddTunnel(p ipsec.Policy) error {
	p, err := check(p)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return ErrClosed
	}
	if g.tunnels[p.Tunnel] != nil {
		return fmt.Errorf("tunnel %s: %w", p.Tunnel, ErrExists)
	}
	for _, other := range g.tunnels {
		if err := p.Conflict(&other.policy); err != nil {
			return err
		}
	}
	t := &tunnel{
		policy: p, peer: peerAddress(p.Dst, p.Encapsulation),
		inbound: map[uint32]*inboundSA{}, outbound: map[uint32]*outboundSA{},
	}
	t.path.Store(int64(p.PathMTU))
	if t.source, err = g.routes.Sources(p.Local); err != nil {
		return fmt.Errorf("tunnel %s: %w", p.Tunnel, err)
	}
	all := maps.Clone(g.tunnels)
	all[p.Tunnel] = t
	if err := g.filter.Add(p); err != nil {
		return err
	}
	if err := g.connect(t, all); err != nil {
		err = fmt.Errorf("tunnel %s: %w", p.Tunnel, err)
		return errors.Join(err, g.routes.Sync(g.steered(g.tunnels)), g.filter.Remove(p.Tunnel))
	}
	g.tunnels = all
	g.table.Store(newTable(all))
	return nil
}

// connect gives a tunnel its socket and routes.
func (g *Gateway) connect(t *tunnel, all map[string]*tunnel) error {
	if mtu := max(t.mtu(), 1280); mtu > g.mtu { // below 1280 the interface would lose IPv6
		if err := g.port.SetMTU(g.netlink, mtu); err != nil {
			return err
		}
		g.mtu = mtu
	}
	if err := g.routes.Sync(g.steered(all)); err != nil {
		return err
	}
	e := endpoint{t.policy.Src, t.policy.Encapsulation}
	if t.socket = g.sockets[e]; t.socket == nil {
		err := g.inside(func() (err error) {
			t.socket, err = openOuter(e)
			return err
		})
		if err != nil {
			return err
		}
		g.sockets[e] = t.socket
		go g.newInbound(t.socket).run()
	}
	t.socket.users++
	return nil
}

// steered is what the routes need to know of tunnels.
func (g *Gateway) steered(tunnels map[string]*tunnel) map[string]route.Tunnel {
	all := make(map[string]route.Tunnel, len(tunnels))
	for name, t := range tunnels {
		all[name] = route.Tunnel{Policy: t.policy, MTU: t.mtu(), Source: t.source, Link: g.port.Index()}
	}
	return all
}

// RemoveTunnel drops the policy and all SAs of a tunnel.
func (g *Gateway) RemoveTunnel(tunnel string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	t, err := g.find(tunnel)
	if err != nil {
		return err
	}
	rest := maps.Clone(g.tunnels)
	delete(rest, tunnel)
	g.tunnels = rest
	t.replace(nil)
	g.table.Store(newTable(rest))
	g.changeInbound(func(sas map[uint32]*inboundSA) {
		for spi := range t.inbound {
			delete(sas, spi)
		}
	})
	var errs []error
	if t.socket.users--; t.socket.users == 0 {
		delete(g.sockets, t.socket.endpoint)
		errs = append(errs, t.socket.close())
	}
	errs = append(errs, g.routes.Sync(g.steered(rest)), g.filter.Remove(tunnel))
	return errors.Join(errs...)
}

// find must be called under g.mu.
func (g *Gateway) find(tunnel string) (*tunnel, error) {
	if g.closed {
		return nil, ErrClosed
	}
	t := g.tunnels[tunnel]
	if t == nil {
		return nil, fmt.Errorf("tunnel %q: %w", tunnel, ErrUnknown)
	}
	return t, nil
}

func (g *Gateway) changeInbound(change func(map[uint32]*inboundSA)) {
	sas := maps.Clone(*g.inbound.Load())
	change(sas)
	g.inbound.Store(&sas)
}

// AddInbound makes the node accept packets of sa on the tunnel, beside those of earlier SAs, and wipes sa.
func (g *Gateway) AddInbound(tunnel string, sa *ipsec.SA) error {
	defer sa.Wipe()
	g.mu.Lock()
	defer g.mu.Unlock()
	t, err := g.find(tunnel)
	if err != nil {
		return err
	}
	if sa.SPI < 256 {
		return fmt.Errorf("tunnel %s: inbound %v: %w", tunnel, sa, ErrSPI)
	}
	if (*g.inbound.Load())[sa.SPI] != nil || t.outbound[sa.SPI] != nil {
		return fmt.Errorf("tunnel %s: inbound %v: %w", tunnel, sa, ErrExists)
	}
	in, err := newInbound(t, sa)
	if err != nil {
		return fmt.Errorf("tunnel %s: inbound %v: %w", tunnel, sa, err)
	}
	t.inbound[sa.SPI] = in
	g.changeInbound(func(sas map[uint32]*inboundSA) { sas[sa.SPI] = in })
	return nil
}

// SetOutbound makes sa protect every further packet of the tunnel. The SA before it stays, for its Counters, until
// RemoveOutbound. It wipes sa.
func (g *Gateway) SetOutbound(tunnel string, sa *ipsec.SA) error {
	defer sa.Wipe()
	g.mu.Lock()
	defer g.mu.Unlock()
	t, err := g.find(tunnel)
	if err != nil {
		return err
	}
	if sa.SPI < 256 {
		return fmt.Errorf("tunnel %s: outbound %v: %w", tunnel, sa, ErrSPI)
	}
	if t.outbound[sa.SPI] != nil || t.inbound[sa.SPI] != nil {
		return fmt.Errorf("tunnel %s: outbound %v: %w", tunnel, sa, ErrExists)
	}
	out, err := newOutbound(t, sa)
	if err != nil {
		return fmt.Errorf("tunnel %s: outbound %v: %w", tunnel, sa, err)
	}
	t.outbound[sa.SPI] = out
	t.replace(out)
	return nil
}

// RemoveInbound drops one SA; one that is gone already is no error.
func (g *Gateway) RemoveInbound(tunnel string, spi uint32) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	t, err := g.find(tunnel)
	if err != nil {
		return err
	}
	if t.inbound[spi] != nil {
		delete(t.inbound, spi)
		g.changeInbound(func(sas map[uint32]*inboundSA) { delete(sas, spi) })
	}
	return nil
}

// RemoveOutbound drops one SA; one that is gone already is no error.
func (g *Gateway) RemoveOutbound(tunnel string, spi uint32) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	t, err := g.find(tunnel)
	if err != nil {
		return err
	}
	if out := t.outbound[spi]; out != nil {
		if t.out.Load() == out {
			t.replace(nil)
		}
		delete(t.outbound, spi)
	}
	return nil
}

// Counters of an SA in either direction; an SA that is not there is ErrUnknown.
func (g *Gateway) Counters(tunnel string, spi uint32) (ipsec.Counters, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t, err := g.find(tunnel)
	if err != nil {
		return ipsec.Counters{}, err
	}
	if in := t.inbound[spi]; in != nil {
		return in.counters(), nil
	}
	if out := t.outbound[spi]; out != nil {
		return out.counters(), nil
	}
	return ipsec.Counters{}, fmt.Errorf("tunnel %s: SPI %#08x: %w", tunnel, spi, ErrUnknown)
}

// Drops of a tunnel; an empty name gives those that belong to none.
func (g *Gateway) Drops(tunnel string) (ipsec.Drops, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if tunnel == "" {
		return g.drops.load(), nil
	}
	t, err := g.find(tunnel)
	if err != nil {
		return ipsec.Drops{}, err
	}
	d := t.drops.load()
	d.Plaintext, err = g.filter.Refused(tunnel)
	return d, err
}
