// Package xfrm is the dataplane that the kernel has: SAs and policies of its IPsec, in a network namespace. It makes ESP
// tunnels (RFC 4303) with AES-256-GCM (RFC 4106) and extended sequence numbers. It needs no privilege outside of that
// namespace. There is one in a namespace, and nothing else that does IPsec.
//
// # Which SA protects
//
// Of several outbound SAs of one reqid the kernel takes one that has not reached a soft limit, and of those the one that
// was added last, by the second: too vague to replace one by another. So the template of the outbound policies names the
// SPI. A policy is replaced in one step, and cached lookups with it; until then every packet takes the old SA, from then
// on every packet takes the new one. A tunnel without an SA has a template with a reqid that no SA has.
//
// A packet that was looked up before may be about to be sealed. So the SA before is removed from the kernel a moment after
// RemoveOutbound, and its counters are read after every processor has passed through a state in which it can be in the
// middle of no packet (membarrier(2)). They are final then, with one exception: without an interface a program's packet is
// looked up before the program's bytes are copied, and a program that is preempted there sends it under the SA before.
package xfrm

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
	"pqlab/ipsec/expiry"
	"pqlab/ipsec/plaintext"
	"pqlab/ipsec/route"
)

// # With an interface and without
//
// Where the kernel has xfrm interfaces, protected packets are routed into one, and come out of it. Then the kernel
// fragments and answers by its MTU before it seals, and a capture of a link shows what is on the link. Without, policies
// alone decide: what is too large and has no DF is sealed whole and fragmented outside, and a capture of the link shows
// what was received twice, as ESP and as what was in it.

// Config of a Dataplane. The zero value is useful.
type Config struct {
	Interface   string           // its name, at most 15 bytes; empty means "esp0"
	NoInterface bool             // policies alone
	Namespace   *netns.Namespace // to work in; nil means the process's own. The caller keeps it open until Close
}

// Dataplane is an ipsec.Dataplane.
//
// It wipes the keys that it is given, and what it sent to the kernel of them. The kernel gives keys back to whoever may
// administer the namespace; what is read here is wiped too.
type Dataplane struct {
	config     Config
	expiries   *expiry.Queue
	watching   sync.WaitGroup
	directions bool // the kernel knows directions of SAs

	// Each is nil until it is there.
	conn    *xfrmnl.Conn
	monitor *xfrmnl.Monitor
	link    netlink.Link // the xfrm interface; nil without one
	netlink *netlink.Handle
	filter  *plaintext.Filter
	routes  *route.Table
	stat    *statFile

	mu       sync.Mutex // guards what follows, and makes changes one after the other
	closed   bool
	tunnels  map[string]*tunnel
	sas      map[saID]*sa
	lingers  map[saID]*time.Timer // replaced, and still in the kernel
	wanted   map[uint32]*tunnel   // by the reqid of the template of a tunnel that has no outbound SA
	sockets  map[netip.Addr]*encap
	lastID   uint32
	mtu      int         // of the interface
	account  Statistics  // until here every refusal has been accounted for
	rest     ipsec.Drops // of no tunnel
	homeless uint64      // NoSA, of a tunnel that is not known yet
}

var _ ipsec.Dataplane = (*Dataplane)(nil)

// filterTable is the nftables table.
const filterTable = "pqlab_xfrm"

// interfaceID joins the interface with its policies and SAs.
const interfaceID = 4500

// New makes the interface and the packet filter, and listens to the kernel. ErrNoESP where the kernel could not carry a packet.
func New(c Config) (*Dataplane, error) { return open(c, probe) }

func open(c Config, probe func(*xfrmnl.Conn, bool) error) (*Dataplane, error) {
	if c.Interface == "" {
		c.Interface = "esp0"
	}
	d := &Dataplane{
		config: c, expiries: expiry.NewQueue(),
		tunnels: map[string]*tunnel{}, sas: map[saID]*sa{}, lingers: map[saID]*time.Timer{}, wanted: map[uint32]*tunnel{},
		sockets: map[netip.Addr]*encap{},
	}
	if err := d.inside(func() error { return d.open(probe) }); err != nil {
		d.expiries.Close()
		return nil, errors.Join(fmt.Errorf("xfrm: %w", err), d.release())
	}
	d.watching.Go(d.watch)
	return d, nil
}

// inside runs f in the dataplane's namespace.
func (d *Dataplane) inside(f func() error) error {
	if d.config.Namespace == nil {
		return f()
	}
	return d.config.Namespace.Do(f)
}

func (d *Dataplane) open(probe func(*xfrmnl.Conn, bool) error) (err error) {
	if d.conn, err = xfrmnl.Dial(); err != nil {
		return noESP(err)
	}
	if d.directions, err = d.conn.Directions(); err != nil {
		return noESP(err)
	}
	if err := probe(d.conn, d.directions); err != nil {
		return err
	}
	d.conn.Warm()
	if d.stat, err = openStatistics(); err != nil {
		return err
	}
	if d.account, err = d.stat.read(); err != nil {
		return err
	}
	if d.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	d.routes = route.New(d.netlink)
	exempt := []plaintext.Exempt{plaintext.Kernel()}
	if !d.config.NoInterface {
		if err := d.makeInterface(); err != nil {
			return err
		}
	}
	if d.link != nil { // first: each packet passes the filter up to three times, and it is the cheaper one to ask
		exempt = []plaintext.Exempt{plaintext.Through(d.link.Attrs().Index), plaintext.Kernel()}
	}
	if d.filter, err = plaintext.New(filterTable, exempt...); err != nil {
		return err
	}
	d.monitor, err = xfrmnl.Watch()
	return err
}

// makeInterface makes the xfrm interface, if the kernel has such.
func (d *Dataplane) makeInterface() error {
	// Without a parent: ESP packets would leave by that and nothing else.
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = d.config.Interface, leastMTU
	err := d.netlink.LinkAdd(&netlink.Xfrmi{LinkAttrs: attrs, Ifid: interfaceID})
	if errors.Is(err, unix.EOPNOTSUPP) { // CONFIG_XFRM_INTERFACE; the name of the dataplane says so
		return nil
	}
	if err != nil {
		return fmt.Errorf("interface %s: %w", d.config.Interface, err)
	}
	if d.link, err = d.netlink.LinkByName(d.config.Interface); err != nil {
		return fmt.Errorf("interface %s: %w", d.config.Interface, err)
	}
	d.mtu = leastMTU
	if err := d.netlink.LinkSetUp(d.link); err != nil {
		return fmt.Errorf("interface %s: %w", d.config.Interface, err)
	}
	return nil
}

// leastMTU of the interface: below it the kernel would take IPv6 away from it.
const leastMTU = 1280

// largest is the largest inner packet of a tunnel: what the interface takes, or without one any at all.
func (d *Dataplane) largest() int {
	if d.link == nil {
		return largestPacket
	}
	return d.mtu
}

// interfaceID of policies and SAs; 0 is none.
func (d *Dataplane) interfaceID() uint32 {
	if d.link == nil {
		return 0
	}
	return interfaceID
}

// release undoes open, as far as it came.
func (d *Dataplane) release() error {
	var errs []error
	if d.monitor != nil {
		errs = append(errs, d.monitor.Close())
		d.watching.Wait()
	}
	if d.routes != nil {
		errs = append(errs, d.routes.Close())
	}
	if d.filter != nil {
		errs = append(errs, d.filter.Close())
	}
	if d.link != nil {
		errs = append(errs, d.netlink.LinkDel(d.link))
	}
	if d.netlink != nil {
		d.netlink.Close()
	}
	if d.stat != nil {
		errs = append(errs, d.stat.Close())
	}
	if d.conn != nil {
		errs = append(errs, d.conn.Close())
	}
	return errors.Join(errs...)
}

// Name is "xfrm/interface" or "xfrm/policy".
func (d *Dataplane) Name() string {
	if d.link == nil {
		return "xfrm/policy"
	}
	return "xfrm/interface"
}

// Expiries delivers the limits that SAs reach, and packets that found no SA; it is closed by Close. The kernel tells the
// first of an SA's soft limits only, and the first of its hard ones.
func (d *Dataplane) Expiries() <-chan ipsec.Expiry { return d.expiries.Out }

// Close removes everything that the dataplane made, but for what the kernel made itself for packets that found no SA: a
// larval SA, which goes after half a minute. A second Close does nothing.
func (d *Dataplane) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	var errs []error
	for _, t := range d.tunnels {
		errs = append(errs, d.remove(t))
	}
	d.closed = true
	d.mu.Unlock()
	errs = append(errs, d.release())
	d.expiries.Close() // when nobody has anything to tell any more
	return errors.Join(errs...)
}

// tunnel is an installed policy with its SAs. It is guarded by Dataplane.mu.
type tunnel struct {
	policy   ipsec.Policy
	ways     []way
	ifID     uint32 // of the interface; 0 is none
	reqid    uint32 // of its SAs
	none     uint32 // reqid of the template while it has no outbound SA; 0 while it has one
	link     int    // index of the interface that protected packets are routed to
	source   map[int]netip.Addr
	inbound  map[uint32]*sa
	outbound map[uint32]*sa
	out      *sa    // protects what leaves; nil is none
	socket   *encap // receives for it; nil where that takes none
	drops    ipsec.Drops
}

// way is a pair of subnets of one family.
type way struct{ local, remote netip.Prefix }

// priority of a way: the longest remote prefix first, and in it the longest local one.
func (w way) priority() uint32 { return 1<<16 - uint32(w.remote.Bits()*129+w.local.Bits()) }

func ways(p *ipsec.Policy) (all []way) {
	for _, l := range p.Local {
		for _, r := range p.Remote {
			if l.Addr().Is4() == r.Addr().Is4() {
				all = append(all, way{l, r})
			}
		}
	}
	return all
}

// outgoing is the policy of what leaves, by the SA in use.
func (t *tunnel) outgoing(w way) *xfrmnl.Policy {
	p := &xfrmnl.Policy{
		Src: w.local, Dst: w.remote, Hook: xfrmnl.Outgoing, Priority: w.priority(),
		OuterSrc: t.policy.Src, OuterDst: t.policy.Dst, ReqID: t.none, IfID: t.ifID,
	}
	if t.out != nil {
		p.ReqID, p.SPI = t.reqid, t.out.spi
	}
	return p
}

func (t *tunnel) arriving(w way, hook xfrmnl.Hook) *xfrmnl.Policy {
	return &xfrmnl.Policy{
		Src: w.remote, Dst: w.local, Hook: hook, Priority: w.priority(),
		OuterSrc: t.policy.Dst, OuterDst: t.policy.Src, ReqID: t.reqid, IfID: t.ifID,
	}
}

// policies are all of a tunnel.
func (t *tunnel) policies() (all []*xfrmnl.Policy) {
	for _, w := range t.ways {
		all = append(all, t.outgoing(w), t.arriving(w, xfrmnl.Incoming), t.arriving(w, xfrmnl.Forwarding))
	}
	return all
}

// AddTunnel installs a policy. From its return on no plaintext between the policy's subnets enters or leaves.
func (d *Dataplane) AddTunnel(p ipsec.Policy) error {
	p, err := p.Check()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	if d.tunnels[p.Tunnel] != nil {
		return fmt.Errorf("tunnel %s: %w", p.Tunnel, ipsec.ErrExists)
	}
	for _, other := range d.tunnels {
		if err := p.Conflict(&other.policy); err != nil {
			return err
		}
	}
	t := &tunnel{policy: p, ways: ways(&p), ifID: d.interfaceID(), reqid: d.newID(), inbound: map[uint32]*sa{}, outbound: map[uint32]*sa{}}
	if err := d.install(t); err != nil {
		return fmt.Errorf("tunnel %s: %w", p.Tunnel, err)
	}
	return nil
}

// install makes everything of a new tunnel, or nothing.
func (d *Dataplane) install(t *tunnel) (err error) {
	if t.source, err = d.routes.Sources(t.policy.Local); err != nil {
		return err
	}
	if err := d.prepare(t); err != nil {
		return err
	}
	if err := d.settleAccounts(); err != nil { // before one more may be without an SA
		return err
	}
	d.tunnels[t.policy.Tunnel] = t
	d.want(t)
	defer func() {
		if err != nil {
			err = errors.Join(err, d.remove(t))
		}
	}()
	for _, p := range t.policies() {
		if err := d.conn.AddPolicy(p); err != nil {
			return fmt.Errorf("policy from %v to %v: %w", p.Src, p.Dst, err)
		}
	}
	if err := d.filter.Add(t.policy); err != nil {
		return err
	}
	if err := d.routes.Sync(d.steered()); err != nil {
		return err
	}
	if t.policy.Encapsulation != ipsec.UDP {
		return nil
	}
	socket := d.sockets[t.policy.Src]
	if socket == nil {
		if err := d.inside(func() (err error) { socket, err = openEncap(t.policy.Src); return err }); err != nil {
			return err
		}
		d.sockets[t.policy.Src] = socket
	}
	t.socket = socket
	return d.inside(func() error { socket.add(t.policy.Dst); return nil })
}

// prepare makes sure that the packets of a tunnel are led where policies are looked up, one by one.
func (d *Dataplane) prepare(t *tunnel) (err error) {
	super := t.policy.Encapsulation == ipsec.ESP && superPackets(t.policy.Dst.Is6())
	if d.link == nil {
		if super {
			return fmt.Errorf("%w (esp4_offload, esp6_offload): limits of IP protocol 50 could come late; "+
				"encapsulation udp or an xfrm interface (CONFIG_XFRM_INTERFACE) would work", ErrSuperPackets)
		}
		t.link, err = d.linkTo(&t.policy)
		return err
	}
	t.link = d.link.Attrs().Index
	if super {
		if err := d.netlink.LinkSetGSOMaxSegs(d.link, 1); err != nil {
			return fmt.Errorf("interface %s: segmentation: %w", d.config.Interface, err)
		}
	}
	if mtu := t.policy.InnerMTU(t.policy.PathMTU); mtu > d.mtu {
		if err := d.netlink.LinkSetMTU(d.link, mtu); err != nil {
			return fmt.Errorf("interface %s: MTU %d: %w", d.config.Interface, mtu, err)
		}
		d.mtu = mtu
	}
	return nil
}

// remove undoes install, as far as it came, and drops the SAs.
func (d *Dataplane) remove(t *tunnel) error {
	errs := []error{d.settleAccounts()}
	installed := t.policies()
	delete(d.tunnels, t.policy.Tunnel)
	delete(d.wanted, t.none)
	for _, p := range installed {
		if err := d.conn.DeletePolicy(p); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("policy from %v to %v: delete: %w", p.Src, p.Dst, err))
		}
	}
	for _, all := range []map[uint32]*sa{t.inbound, t.outbound} {
		for spi, s := range all {
			delete(d.sas, s.saID)
			delete(all, spi)
			errs = append(errs, d.drop(s))
		}
	}
	for id, timer := range d.lingers {
		if id.tunnel == t {
			timer.Stop()
			errs = append(errs, d.evict(id))
		}
	}
	errs = append(errs, d.routes.Sync(d.steered()))
	if d.filter.Has(t.policy.Tunnel) {
		errs = append(errs, d.filter.Remove(t.policy.Tunnel))
	}
	if s := t.socket; s != nil {
		t.socket = nil
		errs = append(errs, s.remove(t.policy.Dst))
		if s.users == 0 {
			delete(d.sockets, t.policy.Src)
			errs = append(errs, s.close())
		}
	}
	return errors.Join(errs...)
}

// RemoveTunnel drops the policy and all SAs of a tunnel.
func (d *Dataplane) RemoveTunnel(tunnel string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, err := d.find(tunnel)
	if err != nil {
		return err
	}
	return d.remove(t)
}

// find must be called under d.mu.
func (d *Dataplane) find(tunnel string) (*tunnel, error) {
	if d.closed {
		return nil, ErrClosed
	}
	t := d.tunnels[tunnel]
	if t == nil {
		return nil, fmt.Errorf("tunnel %q: %w", tunnel, ipsec.ErrUnknown)
	}
	return t, nil
}

// newID gives a reqid that nothing has had.
func (d *Dataplane) newID() uint32 {
	d.lastID++
	return d.lastID
}

// want gives a tunnel without an outbound SA a template that no SA fits.
func (d *Dataplane) want(t *tunnel) {
	t.out, t.none = nil, d.newID() // another one each time, so that the kernel asks anew
	d.wanted[t.none] = t
}

// linkTo is the interface that leads to the peer.
func (d *Dataplane) linkTo(p *ipsec.Policy) (int, error) {
	found, err := d.netlink.RouteGetWithOptions(p.Dst.AsSlice(), &netlink.RouteGetOptions{SrcAddr: p.Src.AsSlice()})
	if err == nil && len(found) > 0 && found[0].LinkIndex > 0 {
		return found[0].LinkIndex, nil
	}
	// The way there may come later. What is protected goes where the peer's packets go all the same: only the lookup
	// before needs a link.
	addrs, errList := d.netlink.AddrList(nil, netlink.FAMILY_ALL)
	for _, a := range addrs {
		if has, ok := netip.AddrFromSlice(a.IP); ok && has.Unmap() == p.Src {
			return a.LinkIndex, nil
		}
	}
	return 0, errors.Join(fmt.Errorf("the way from %v to %v: %w", p.Src, p.Dst, err), errList)
}

// steered is what the routes need to know of the tunnels.
func (d *Dataplane) steered() map[string]route.Tunnel {
	all := make(map[string]route.Tunnel, len(d.tunnels))
	for name, t := range maps.All(d.tunnels) {
		all[name] = route.Tunnel{Policy: t.policy, MTU: t.policy.InnerMTU(t.policy.PathMTU), Source: t.source, Link: t.link}
	}
	return all
}
