// Package route leads what policies protect to where a dataplane takes it, by a routing table of its own.
package route

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/ipsec"
)

// ErrUnavailable: the kernel has no policy routing.
var ErrUnavailable = fmt.Errorf("no policy routing: %w", errors.ErrUnsupported)

// The routes live in a table of their own that is looked up before the main one, so that they win over routes
// that the node has to the same subnets, and go without a trace.
const (
	routeTable    = 4500
	rulePriority  = 4500
	outerPriority = rulePriority - 1 // ESP and key exchanges to a peer that is itself inside of a protected subnet
)

// Table leads the packets that policies protect to their links. Its methods are not safe for concurrent use.
type Table struct {
	netlink   *netlink.Handle
	installed map[netip.Prefix]route
	rules     map[int]bool // by address family
	outer     map[outerPath]bool
}

// Tunnel is what the table needs to know of one.
type Tunnel struct {
	Policy ipsec.Policy
	MTU    int                // of inner packets
	Source map[int]netip.Addr // the node's own address in Policy.Local, by family; see Sources
	Link   int                // index of the interface that inner packets go to
}

// outerPath is where a tunnel's ESP packets go.
type outerPath struct{ src, dst netip.Addr }

// New makes a table that is empty. h stays the caller's.
func New(h *netlink.Handle) *Table {
	return &Table{netlink: h, installed: map[netip.Prefix]route{}, rules: map[int]bool{}, outer: map[outerPath]bool{}}
}

// route is what the table says of a prefix. A throw route sends the lookup on to the main table.
type route struct {
	throw  bool
	link   int
	mtu    int
	source netip.Addr // preferred; may be invalid
}

// Sync makes the table fit the tunnels. After an error part of the change may be done; calling it again goes on.
func (r *Table) Sync(tunnels map[string]Tunnel) error {
	if err := r.syncOuter(tunnels); err != nil {
		return err
	}
	want := wanted(tunnels)
	for prefix, has := range r.installed {
		if w, ok := want[prefix]; !ok || w.throw != has.throw {
			// A route whose preferred source was removed from the node is gone already.
			if err := r.netlink.RouteDel(r.entry(prefix, has)); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("route %v: delete: %w", prefix, err)
			}
			delete(r.installed, prefix)
		}
	}
	for prefix, w := range want {
		if err := r.rule(prefix); err != nil {
			return err
		}
		if has, ok := r.installed[prefix]; ok && has == w {
			continue
		}
		if err := r.netlink.RouteReplace(r.entry(prefix, w)); err != nil {
			return fmt.Errorf("route %v, MTU %d: %w", prefix, w.mtu, err)
		}
		r.installed[prefix] = w
	}
	return nil
}

// syncOuter keeps the outer packets of each tunnel whose peer is inside of a remote subnet off the links: such a peer
// protects its own address, as a client does, and what else goes to it belongs into the tunnel.
func (r *Table) syncOuter(tunnels map[string]Tunnel) error {
	want := map[outerPath]bool{}
	for _, t := range tunnels {
		if covered(netip.PrefixFrom(t.Policy.Dst, t.Policy.Dst.BitLen()), tunnels) {
			want[outerPath{t.Policy.Src, t.Policy.Dst}] = true
		}
	}
	for path := range r.outer {
		if want[path] {
			continue
		}
		if err := r.netlink.RuleDel(path.rule()); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("rule from %v to %v: delete: %w", path.src, path.dst, err)
		}
		delete(r.outer, path)
	}
	for path := range want {
		if r.outer[path] {
			continue
		}
		if err := r.netlink.RuleAdd(path.rule()); err != nil {
			return fmt.Errorf("rule from %v to %v: %w", path.src, path.dst, err)
		}
		r.outer[path] = true
	}
	return nil
}

func (p outerPath) rule() *netlink.Rule {
	rule := netlink.NewRule()
	rule.Family, rule.Table, rule.Priority = family(p.src), unix.RT_TABLE_MAIN, outerPriority
	rule.Src, rule.Dst = ipNet(netip.PrefixFrom(p.src, p.src.BitLen())), ipNet(netip.PrefixFrom(p.dst, p.dst.BitLen()))
	return rule
}

// wanted is what the table must say. A remote subnet goes to its link; a local subnet inside of some remote subnet does
// not.
func wanted(tunnels map[string]Tunnel) map[netip.Prefix]route {
	want := map[netip.Prefix]route{}
	for _, t := range tunnels {
		for _, prefix := range t.Policy.Remote {
			mtu := t.MTU
			if prefix.Addr().Is6() {
				mtu = max(mtu, 1280) // the kernel takes no less
			}
			w, ok := want[prefix]
			if !ok || t.Link < w.link {
				w.link = t.Link // where tunnels differ any will do, if it is always the same
			}
			if !ok || mtu < w.mtu {
				w.mtu = mtu
			}
			if source := t.Source[family(prefix.Addr())]; !w.source.IsValid() || source.IsValid() && source.Less(w.source) {
				w.source = source
			}
			want[prefix] = w
		}
	}
	for _, t := range tunnels {
		for _, prefix := range t.Policy.Local {
			if _, ok := want[prefix]; !ok && covered(prefix, tunnels) {
				want[prefix] = route{throw: true}
			}
		}
	}
	return want
}

func covered(prefix netip.Prefix, tunnels map[string]Tunnel) bool {
	for _, t := range tunnels {
		for _, remote := range t.Policy.Remote {
			if remote.Bits() <= prefix.Bits() && remote.Contains(prefix.Addr()) {
				return true
			}
		}
	}
	return false
}

func (r *Table) entry(prefix netip.Prefix, w route) *netlink.Route {
	e := &netlink.Route{Dst: ipNet(prefix), Table: routeTable, Protocol: unix.RTPROT_STATIC}
	if w.throw {
		e.Type = unix.RTN_THROW
		return e
	}
	e.LinkIndex, e.MTU = w.link, w.mtu
	if w.source.IsValid() {
		e.Src = w.source.AsSlice()
	}
	if prefix.Addr().Is4() {
		e.Scope = netlink.SCOPE_LINK
	}
	return e
}

// rule makes lookups of the prefix's family begin in the table.
func (r *Table) rule(prefix netip.Prefix) error {
	f := family(prefix.Addr())
	if r.rules[f] {
		return nil
	}
	if err := r.netlink.RuleAdd(newRule(f)); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
			return fmt.Errorf("%w: kernel lacks CONFIG_IP_MULTIPLE_TABLES or CONFIG_IPV6_MULTIPLE_TABLES: %w", ErrUnavailable, err)
		}
		return fmt.Errorf("rule for table %d: %w", routeTable, err)
	}
	r.rules[f] = true
	return nil
}

func newRule(family int) *netlink.Rule {
	rule := netlink.NewRule()
	rule.Family, rule.Table, rule.Priority = family, routeTable, rulePriority
	return rule
}

// Close removes the rules and routes.
func (r *Table) Close() error {
	err := r.Sync(nil)
	for f := range r.rules {
		if e := r.netlink.RuleDel(newRule(f)); e != nil {
			err = errors.Join(err, fmt.Errorf("rule for table %d: delete: %w", routeTable, e))
		}
		delete(r.rules, f)
	}
	return err
}

// Sources are the node's own addresses in a policy's local subnets, one for each family: what the node itself sends into
// the tunnel should come from there.
func (r *Table) Sources(local []netip.Prefix) (map[int]netip.Addr, error) {
	addrs, err := r.netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("addresses of the node: %w", err)
	}
	found := map[int]netip.Addr{}
	for _, prefix := range local {
		for _, a := range addrs {
			addr, ok := netip.AddrFromSlice(a.IP)
			addr = addr.Unmap()
			if f := family(addr); ok && !found[f].IsValid() && prefix.Contains(addr) && a.Flags&unix.IFA_F_TENTATIVE == 0 {
				found[f] = addr
			}
		}
	}
	return found, nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
