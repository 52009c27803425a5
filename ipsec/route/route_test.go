package route

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/internal/rootless"
	"pqlab/ipsec"
)

func TestMain(m *testing.M) {
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "route: tests need network namespaces:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// node is a namespace with a network and an interface for tunnels: net0, with a default route, and in0, both up. It has an
// address in the subnets that it protects.
type node struct {
	*netlink.Handle
	net0, in0 int
}

var (
	outer, peer = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	own4, own6  = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00:1::1")
)

func newNode(t *testing.T) node {
	t.Helper()
	nss, err := netns.New(1)
	check(t, err)
	t.Cleanup(func() { nss[0].Close() })
	h, err := nss[0].Netlink()
	check(t, err)
	index := map[string]int{}
	for name, addrs := range map[string][]netip.Addr{"net0": {outer, netip.MustParseAddr("2001:db8::1")}, "in0": nil, "own0": {own4, own6}} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		check(t, h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "-far"}))
		for _, end := range []string{name, name + "-far"} {
			link, err := h.LinkByName(end)
			check(t, err)
			check(t, h.LinkSetUp(link))
		}
		link, err := h.LinkByName(name)
		check(t, err)
		index[name] = link.Attrs().Index
		for _, a := range addrs {
			bits := 24
			if a.Is6() {
				bits = 64
			}
			check(t, h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, bits)), Flags: unix.IFA_F_NODAD}))
		}
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		check(t, h.RouteAdd(&netlink.Route{LinkIndex: index["net0"], Dst: ipNet(netip.MustParsePrefix(all))}))
	}
	return node{h, index["net0"], index["in0"]}
}

// way is where a packet goes, and what the kernel would take for its source and for what fits.
type way struct {
	link   int
	source netip.Addr
	mtu    int // 0: the interface's own
}

func (n node) to(t *testing.T, dst string, options ...netip.Addr) way {
	t.Helper()
	o := &netlink.RouteGetOptions{}
	for _, src := range options {
		o.SrcAddr = src.AsSlice()
	}
	routes, err := n.RouteGetWithOptions(netip.MustParseAddr(dst).AsSlice(), o)
	check(t, err)
	source, _ := netip.AddrFromSlice(routes[0].Src)
	return way{routes[0].LinkIndex, source.Unmap(), routes[0].MTU}
}

// left is what a Table may leave: its routes, and rules.
func (n node) left(t *testing.T) (all []string) {
	t.Helper()
	for _, f := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := n.RuleList(f)
		check(t, err)
		for _, r := range rules {
			if r.Priority == rulePriority || r.Priority == outerPriority {
				all = append(all, r.String())
			}
		}
	}
	for prefix := range n.table(t) {
		all = append(all, prefix.String())
	}
	return all
}

// table is what the kernel has in the table.
func (n node) table(t *testing.T) map[netip.Prefix]route {
	t.Helper()
	all := map[netip.Prefix]route{}
	for _, f := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := n.RouteListFiltered(f, &netlink.Route{Table: routeTable}, netlink.RT_FILTER_TABLE)
		check(t, err)
		for _, r := range routes {
			addr, _ := netip.AddrFromSlice(r.Dst.IP)
			bits, _ := r.Dst.Mask.Size()
			source, _ := netip.AddrFromSlice(r.Src)
			has := route{r.Type == unix.RTN_THROW, r.LinkIndex, r.MTU, source.Unmap()}
			if has.throw {
				has.link = 0 // the kernel says lo, of IPv6
			}
			all[netip.PrefixFrom(addr.Unmap(), bits)] = has
		}
	}
	return all
}

func prefixes(all ...string) (p []netip.Prefix) {
	for _, s := range all {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// Remote subnets are reached through the tunnel's link, with its MTU, from the node's own address, whatever other routes the
// node has to them; all else is as it was, also afterwards.
func TestLeads(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	check(t, n.RouteAdd(&netlink.Route{LinkIndex: n.net0, Dst: ipNet(netip.MustParsePrefix("10.2.0.128/25"))}))
	before := map[string]way{}
	for _, dst := range []string{"10.2.0.9", "10.2.0.200", "10.3.0.9", "10.1.0.9", "fd00:2::9", "fd00:3::9"} {
		before[dst] = n.to(t, dst)
	}
	r := New(n.Handle)
	p := ipsec.Policy{Tunnel: "t", Src: outer, Dst: peer, Local: prefixes("10.1.0.0/24", "fd00:1::/64"), Remote: prefixes("10.2.0.0/24", "fd00:2::/64")}
	source, err := r.Sources(p.Local)
	check(t, err)
	if want := map[int]netip.Addr{netlink.FAMILY_V4: own4, netlink.FAMILY_V6: own6}; !maps.Equal(source, want) {
		t.Fatalf("sources are %v, want %v", source, want)
	}
	tunnel := Tunnel{Policy: p, MTU: 1400, Source: source, Link: n.in0}
	for range 2 { // the second changes nothing
		check(t, r.Sync(map[string]Tunnel{"t": tunnel}))
		for dst, was := range before {
			want := was
			switch dst {
			case "10.2.0.9", "10.2.0.200":
				want = way{n.in0, own4, 1400}
			case "fd00:2::9":
				want = way{n.in0, own6, 1400}
			}
			if got := n.to(t, dst); got != want {
				t.Errorf("%s: %+v, want %+v", dst, got, want)
			}
		}
	}
	tunnel.MTU = 1000 // less than IPv6 takes
	check(t, r.Sync(map[string]Tunnel{"t": tunnel}))
	if got := []int{n.to(t, "10.2.0.9").mtu, n.to(t, "fd00:2::9").mtu}; !slices.Equal(got, []int{1000, 1280}) {
		t.Errorf("MTUs are %d", got)
	}
	check(t, r.Sync(nil))
	for dst, was := range before {
		if got := n.to(t, dst); got != was {
			t.Errorf("%s without tunnels: %+v, was %+v", dst, got, was)
		}
	}
	check(t, r.Sync(map[string]Tunnel{"t": tunnel}))
	check(t, r.Close())
	if left := n.left(t); left != nil {
		t.Errorf("left: %v", left)
	}
}

// A peer that is inside of what it protects is reached by its outer address all the same, and a local subnet inside of a
// remote one is not in the tunnel.
func TestPeerInside(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	was := [2]way{n.to(t, peer.String(), outer), n.to(t, "10.1.0.9")}
	r := New(n.Handle)
	all := map[string]Tunnel{"t": {MTU: 1400, Link: n.in0, Policy: ipsec.Policy{
		Tunnel: "t", Src: outer, Dst: peer, Local: prefixes("10.1.0.0/24"), Remote: prefixes("0.0.0.0/0"),
	}}}
	check(t, r.Sync(all))
	if got := [2]way{n.to(t, peer.String(), outer), n.to(t, "10.1.0.9")}; got != was {
		t.Errorf("to the peer and within the local subnet: %+v, want %+v", got, was)
	}
	for dst, src := range map[string]netip.Addr{peer.String(): own4, "198.51.100.9": own4} {
		if got := n.to(t, dst, src); got.link != n.in0 {
			t.Errorf("from %v to %s: %+v", src, dst, got)
		}
	}
	check(t, r.Close())
	if left := n.left(t); left != nil {
		t.Errorf("left: %v", left)
	}
}

// After each of many changes the kernel's table is what the tunnels want, and in the end there is nothing.
func TestSync(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	r := New(n.Handle)
	random := rand.New(rand.NewPCG(1, 2))
	some := prefixes("10.2.0.0/16", "10.2.7.0/24", "10.3.0.0/24", "10.1.0.0/24", "192.0.2.0/24", "fd00:2::/48", "fd00:2:0:7::/64", "0.0.0.0/0")
	pick := func() (p []netip.Prefix) {
		for _, s := range some {
			if random.IntN(3) == 0 {
				p = append(p, s)
			}
		}
		return p
	}
	tunnels := map[string]Tunnel{}
	throws, rules := 0, 0
	for range 60 {
		for _, name := range []string{"a", "b", "c"} {
			switch random.IntN(4) {
			case 0:
				delete(tunnels, name)
			case 1, 2:
				tunnels[name] = Tunnel{
					Policy: ipsec.Policy{Tunnel: name, Src: outer, Dst: peer, Local: pick(), Remote: pick()},
					MTU:    1280 + random.IntN(100), Link: []int{n.in0, n.net0}[random.IntN(2)],
					Source: map[int]netip.Addr{netlink.FAMILY_V4: own4},
				}
			}
		}
		check(t, r.Sync(tunnels))
		want := wanted(tunnels)
		if got := n.table(t); !maps.Equal(got, want) {
			t.Fatalf("the table is\n%v, want\n%v", got, want)
		}
		for _, w := range want {
			if w.throw {
				throws++
			}
		}
		rules += len(r.outer)
	}
	if throws == 0 || rules == 0 {
		t.Errorf("%d routes threw, %d rules for peers", throws, rules)
	}
	check(t, r.Close())
	if left := n.left(t); left != nil {
		t.Errorf("left: %v", left)
	}
}

// Routes that went with an address or an interface of the node are no error.
func TestGone(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	r := New(n.Handle)
	tunnels := map[string]Tunnel{"t": {MTU: 1400, Link: n.in0, Policy: ipsec.Policy{
		Tunnel: "t", Src: outer, Dst: peer, Local: prefixes("10.1.0.0/24"), Remote: prefixes("10.2.0.0/24", "fd00:2::/64"),
	}}}
	check(t, r.Sync(tunnels))
	link, err := n.LinkByIndex(n.in0)
	check(t, err)
	check(t, n.LinkDel(link))
	check(t, r.Close())
	if left := n.left(t); left != nil {
		t.Errorf("left: %v", left)
	}
	// What the kernel refuses is an error, which names the route.
	if err := r.Sync(tunnels); !errors.Is(err, unix.ENODEV) {
		t.Errorf("a route through an interface that is gone: %v", err)
	}
	check(t, r.Close())
}
