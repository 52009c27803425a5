package topology

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// A Builder describes a lab as a sentence:
//
//	topology.New("east-west").
//		Host("h1").DPU("d1", topology.On("h1")).
//		Host("h2").DPU("d2", topology.On("h2")).
//		Fibre("d1", "d2", 100*topology.Gbit, topology.Length(10_000)).
//		Tunnel("ew", "d1", "d2", topology.Suite("mldsa65+mlkem768")).
//		TCP("h1", "h2").
//		Plan()
//
// Mistakes are kept until Topology or Plan, which report all of them, each with the file and line of its call.
// A DPU is joined to its host by a PCIe link of its own, unless PCIe makes one.
type Builder struct {
	t    Topology
	errs problems
	at   map[string]Position
}

// New begins a lab.
func New(name string) *Builder {
	b := &Builder{t: Topology{Name: name}, at: map[string]Position{}}
	b.mark("name")
	return b
}

// mark remembers the call of the exported method that called it as the place of element.
func (b *Builder) mark(element string) {
	if _, file, line, ok := runtime.Caller(2); ok {
		b.at[element] = Position{filepath.Base(file), line, 0}
	}
}

// Describe says in a sentence what the lab is.
func (b *Builder) Describe(text string) *Builder {
	b.t.Description = text
	b.mark("description")
	return b
}

// Seed sets the seed of every random choice of the links.
func (b *Builder) Seed(seed uint64) *Builder {
	b.t.Seed = seed
	return b
}

// Verify measures each shaped link before the lab is used; fields of within that are zero mean the defaults.
func (b *Builder) Verify(within Tolerance) *Builder {
	b.t.Verify, b.t.Tolerance = true, within
	b.mark("tolerance")
	return b
}

// Client adds an end system that does not forward.
func (b *Builder) Client(name string, options ...NodeOption) *Builder {
	b.mark(b.node(name, Client, options))
	return b
}

// Host adds a server.
func (b *Builder) Host(name string, options ...NodeOption) *Builder {
	b.mark(b.node(name, Host, options))
	return b
}

// DPU adds a DPU; On names its host.
func (b *Builder) DPU(name string, options ...NodeOption) *Builder {
	b.mark(b.node(name, DPU, options))
	return b
}

// AP adds a Wi-Fi access point.
func (b *Builder) AP(name string, options ...NodeOption) *Builder {
	b.mark(b.node(name, AP, options))
	return b
}

// Switch adds an Ethernet switch.
func (b *Builder) Switch(name string, options ...NodeOption) *Builder {
	b.mark(b.node(name, Switch, options))
	return b
}

func (b *Builder) node(name string, kind NodeKind, options []NodeOption) string {
	element := fmt.Sprintf("nodes[%d]", len(b.t.Nodes))
	n := Node{Name: name, Kind: kind}
	for _, o := range options {
		if err := o.node(&n); err != nil {
			b.errs.add(BadValue, element, "node %s: %v", name, err)
		}
	}
	b.t.Nodes = append(b.t.Nodes, n)
	return element
}

// Ethernet joins two nodes.
func (b *Builder) Ethernet(nodeA, nodeB string, options ...LinkOption) *Builder {
	b.mark(b.link(Ethernet, nodeA, nodeB, options))
	return b
}

// Fibre joins two nodes by a fibre; Length gives it a delay.
func (b *Builder) Fibre(nodeA, nodeB string, options ...LinkOption) *Builder {
	b.mark(b.link(Fibre, nodeA, nodeB, options))
	return b
}

// PCIe joins a host and its DPU. It is only needed where the link has options.
func (b *Builder) PCIe(nodeA, nodeB string, options ...LinkOption) *Builder {
	b.mark(b.link(PCIe, nodeA, nodeB, options))
	return b
}

// WiFi joins a node and an access point.
func (b *Builder) WiFi(nodeA, nodeB string, options ...LinkOption) *Builder {
	b.mark(b.link(WiFi, nodeA, nodeB, options))
	return b
}

func (b *Builder) link(kind LinkKind, nodeA, nodeB string, options []LinkOption) string {
	element := fmt.Sprintf("links[%d]", len(b.t.Links))
	l := Link{Kind: kind, A: End{Node: nodeA}, B: End{Node: nodeB}}
	for _, o := range options {
		if err := o.link(&l); err != nil {
			b.errs.add(BadValue, element, "link %s-%s: %v", nodeA, nodeB, err)
		}
	}
	b.t.Links = append(b.t.Links, l)
	return element
}

// Tunnel adds an ESP tunnel; nodeA starts its exchange.
func (b *Builder) Tunnel(name, nodeA, nodeB string, options ...TunnelOption) *Builder {
	element := fmt.Sprintf("tunnels[%d]", len(b.t.Tunnels))
	b.mark(element)
	t := Tunnel{Name: name, A: TunnelEnd{Node: nodeA}, B: TunnelEnd{Node: nodeB}}
	for _, o := range options {
		if err := o.tunnel(&t); err != nil {
			b.errs.add(BadValue, element, "tunnel %s: %v", name, err)
		}
	}
	b.t.Tunnels = append(b.t.Tunnels, t)
	return b
}

// TCP adds TCP traffic, as fast as it goes unless it is given a Rate.
func (b *Builder) TCP(from, to string, options ...FlowOption) *Builder {
	b.mark(b.flow("tcp", from, to, options))
	return b
}

// UDP adds UDP traffic, 100 Mbit/s unless it is given a Rate.
func (b *Builder) UDP(from, to string, options ...FlowOption) *Builder {
	b.mark(b.flow("udp", from, to, options))
	return b
}

func (b *Builder) flow(proto, from, to string, options []FlowOption) string {
	element := fmt.Sprintf("traffic[%d]", len(b.t.Traffic))
	f := Flow{Proto: proto, From: from, To: to}
	for _, o := range options {
		if err := o.flow(&f); err != nil {
			b.errs.add(BadValue, element, "flow from %s to %s: %v", from, to, err)
		}
	}
	b.t.Traffic = append(b.t.Traffic, f)
	return element
}

// Topology returns the lab, or Errors if it cannot be planned.
func (b *Builder) Topology() (*Topology, error) {
	t, _, err := b.finish()
	return t, err
}

// Plan returns the lab's plan.
func (b *Builder) Plan() (*Plan, error) {
	_, plan, err := b.finish()
	return plan, err
}

func (b *Builder) finish() (*Topology, *Plan, error) {
	t := b.t
	t.Nodes, t.Links = slices.Clone(t.Nodes), slices.Clone(t.Links)
	t.Tunnels, t.Traffic = slices.Clone(t.Tunnels), slices.Clone(t.Traffic)
	for _, n := range t.Nodes {
		joins := func(l Link) bool {
			return l.Kind == PCIe && (l.A.Node == n.Name && l.B.Node == n.Host || l.B.Node == n.Name && l.A.Node == n.Host)
		}
		known := slices.ContainsFunc(t.Nodes, func(h Node) bool { return h.Name == n.Host })
		if n.Kind == DPU && known && !slices.ContainsFunc(t.Links, joins) {
			t.Links = append(t.Links, Link{Kind: PCIe, A: End{Node: n.Host}, B: End{Node: n.Name}})
		}
	}
	found := slices.Clone(b.errs.found)
	placed := t
	placed.at = linksAt(len(b.t.Links), b.at)
	plan, err := placed.Plan()
	if err != nil {
		found = append(found, asErrors(err)...)
	}
	if len(found) > 0 {
		return nil, nil, found.locate(b.at, b.at["name"])
	}
	return &t, plan, nil
}

// NodeOption sets something of a node, LinkOption of a link, TunnelOption of a tunnel, FlowOption of a flow. A Rate is
// an option of links and flows.
type (
	NodeOption   interface{ node(*Node) error }
	LinkOption   interface{ link(*Link) error }
	TunnelOption interface{ tunnel(*Tunnel) error }
	FlowOption   interface{ flow(*Flow) error }
)

type (
	nodeOption   func(*Node) error
	linkOption   func(*Link) error
	tunnelOption func(*Tunnel) error
	flowOption   func(*Flow) error
)

func (o nodeOption) node(n *Node) error       { return o(n) }
func (o linkOption) link(l *Link) error       { return o(l) }
func (o tunnelOption) tunnel(t *Tunnel) error { return o(t) }
func (o flowOption) flow(f *Flow) error       { return o(f) }

func (r Rate) link(l *Link) error { l.Rate = r; return r.check() }
func (r Rate) flow(f *Flow) error { f.Rate = r; return r.check() }

func (r Rate) check() error {
	if r == 0 {
		return errors.New("rate 0 carries nothing; leave the rate out for an unshaped link or unpaced traffic")
	}
	return nil
}

// On says which host a DPU is plugged into.
func On(host string) NodeOption { return nodeOption(func(n *Node) error { n.Host = host; return nil }) }

// Certificate gives a node a TLS certificate and its private key from a PEM file.
func Certificate(file string) NodeOption {
	return nodeOption(func(n *Node) error { n.Certificate = file; return nil })
}

// Profile caps a node's CPU as a device's.
func Profile(name string) NodeOption {
	return nodeOption(func(n *Node) error { n.Profile = name; return nil })
}

// Inner gives a client or host inner addresses, as "192.168.7.1/32".
func Inner(addresses ...string) NodeOption {
	return nodeOption(func(n *Node) (err error) { n.Inner, err = parsePrefixes(addresses); return err })
}

// Name names a link or a flow.
type Name string

func (name Name) link(l *Link) error { l.Name = string(name); return nil }
func (name Name) flow(f *Flow) error { f.Name = string(name); return nil }

// Keying is "pqlab" or "strongswan".
func Keying(name string) TunnelOption {
	return tunnelOption(func(t *Tunnel) error { t.Keying = name; return nil })
}

// Suite sets the signature and KEM of a tunnel.
func Suite(name string) TunnelOption {
	return tunnelOption(func(t *Tunnel) error { t.Suite = name; return nil })
}

// Combiner is "xor" or "hardened".
func Combiner(name string) TunnelOption {
	return tunnelOption(func(t *Tunnel) error { t.Combiner = name; return nil })
}

// Identity is "fresh" or "pinned".
func Identity(name string) TunnelOption {
	return tunnelOption(func(t *Tunnel) error { t.Identity = name; return nil })
}

// Mutual makes both ends sign.
func Mutual() TunnelOption {
	return tunnelOption(func(t *Tunnel) error { t.Mutual = true; return nil })
}

// OfferTLS sets the TLS groups of a tunnel's exchange.
func OfferTLS(groups ...string) TunnelOption {
	return tunnelOption(func(t *Tunnel) error { t.TLSGroups = groups; return nil })
}

// CA trusts the certificates of a PEM file.
func CA(file string) TunnelOption {
	return tunnelOption(func(t *Tunnel) error { t.CA = file; return nil })
}

// Rekey sets when a tunnel's keys are replaced.
func Rekey(limits Limits) TunnelOption {
	return tunnelOption(func(t *Tunnel) error { t.Rekey = limits; return nil })
}

// Encapsulation is "udp" or "esp".
func Encapsulation(name string) TunnelOption {
	return tunnelOption(func(t *Tunnel) error { t.Encapsulation = name; return nil })
}

// Dataplane is "auto", "gateway", "xfrm" or "offload".
func Dataplane(name string) TunnelOption {
	return tunnelOption(func(t *Tunnel) error { t.Dataplane = name; return nil })
}

// Deadline of each step of a tunnel's exchange.
func Deadline(d time.Duration) TunnelOption {
	return tunnelOption(func(t *Tunnel) error { t.Deadline = d; return nil })
}

// Protect sets the subnets behind the end of a tunnel at node.
func Protect(node string, subnets ...string) TunnelOption {
	return tunnelOption(func(t *Tunnel) error {
		end := &t.A
		if t.B.Node == node {
			end = &t.B
		} else if t.A.Node != node {
			return fmt.Errorf("does not end at %q", node)
		}
		var err error
		end.Subnets, err = parsePrefixes(subnets)
		return err
	})
}

// Family is "ipv4" or "ipv6": of a tunnel's outer addresses, or of a flow.
type Family string

func (f Family) tunnel(t *Tunnel) error { t.Family = string(f); return nil }
func (f Family) flow(l *Flow) error     { l.Family = string(f); return nil }

// Via names the nodes that relay a TCP flow.
func Via(nodes ...string) FlowOption {
	return flowOption(func(f *Flow) error { f.Via = nodes; return nil })
}

// Streams is how many connections or UDP flows share a flow.
func Streams(n int) FlowOption {
	return flowOption(func(f *Flow) error { f.Streams = n; return nil })
}

// FrameSize of UDP traffic, bytes of IP packet.
func FrameSize(bytes int) FlowOption {
	return flowOption(func(f *Flow) error { f.FrameSize = bytes; return nil })
}

// For is how long a flow lasts.
func For(d time.Duration) FlowOption {
	return flowOption(func(f *Flow) error { f.Duration = d; return nil })
}

func parsePrefixes(texts []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, s := range texts {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%q is not an address with a prefix length, as 10.0.0.1/24", s)
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}
