package plaintext

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/internal/rootless"
	"pqlab/ipsec"
)

func TestMain(m *testing.M) {
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "plaintext: tests need network namespaces:", err)
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

// TestElements: an address is in one of the intervals where it is in one of the prefixes, and the intervals are what a set
// takes: ascending, and none inside another.
func TestElements(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	address := func(v6 bool) netip.Addr {
		b := make([]byte, 4)
		if v6 {
			b = make([]byte, 16)
		}
		for _, i := range []int{0, len(b) - 1} { // so that prefixes meet, and touch the first and the last address
			b[i] = []byte{0, 1, 2, 3, 127, 128, 254, 255}[random.IntN(8)]
		}
		if random.IntN(3) == 0 {
			for i := 1; i < len(b)-1; i++ {
				b[i] = 0xff
			}
		}
		a, _ := netip.AddrFromSlice(b)
		return a
	}
	inside, whole := 0, 0
	for round := range 3000 {
		v6 := round%2 == 0
		var all []netip.Prefix
		var probes []netip.Addr
		for range random.IntN(6) {
			a := address(v6)
			p := netip.PrefixFrom(a, []int{0, 1, 7, 8, 9, a.BitLen() - 1, a.BitLen()}[random.IntN(7)]).Masked()
			all = append(all, p)
			probes = append(probes, p.Addr(), p.Addr().Prev())
			if b, ok := after(p); ok {
				end, _ := netip.AddrFromSlice(b)
				probes = append(probes, end, end.Prev())
			} else {
				whole++
			}
		}
		for range 10 {
			probes = append(probes, address(v6))
		}
		e := elements(slices.Clone(all))
		for i := 1; i < len(e); i++ {
			if c := bytes.Compare(e[i-1].Key, e[i].Key); c > 0 || c == 0 && e[i].IntervalEnd || e[i-1].IntervalEnd == e[i].IntervalEnd {
				t.Fatalf("%v: element %d does not come after the one before: %v", all, i, e)
			}
		}
		for _, a := range probes {
			if !a.IsValid() { // before the first
				continue
			}
			got := false
			for _, x := range e {
				if bytes.Compare(x.Key, a.AsSlice()) <= 0 {
					got = !x.IntervalEnd
				}
			}
			want := slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(a) })
			if got != want {
				t.Fatalf("%v in %v: %v", a, all, got)
			}
			if want {
				inside++
			}
		}
	}
	if inside < 1000 || whole < 100 {
		t.Errorf("%d probes inside, %d prefixes to the last address", inside, whole)
	}
}

// rig is two nodes with two links, by either of which they reach each other's addresses. The first has a Filter, for which the
// second link leads into tunnels.
type rig struct {
	ns     [2]*netns.Namespace
	filter *Filter
	links  [2][2]int // interfaces by node and link
}

// addresses of the nodes, in what a tunnel between them protects and in what none does.
var addresses = [2]map[string]netip.Addr{
	{"4": netip.MustParseAddr("10.1.0.1"), "6": netip.MustParseAddr("fd00:1::1"), "other": netip.MustParseAddr("10.8.0.1")},
	{"4": netip.MustParseAddr("10.2.0.1"), "6": netip.MustParseAddr("fd00:2::1"), "other": netip.MustParseAddr("10.9.0.1")},
}

func newRig(t *testing.T) *rig {
	t.Helper()
	nss, err := netns.New(2)
	check(t, err)
	r := &rig{ns: [2]*netns.Namespace(nss)}
	t.Cleanup(func() { r.ns[0].Close(); r.ns[1].Close() })
	for i := range 2 {
		h, err := r.ns[0].Netlink()
		check(t, err)
		attrs := netlink.NewLinkAttrs()
		attrs.Name = fmt.Sprintf("link%d", i)
		check(t, h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: attrs.Name, PeerNamespace: netlink.NsFd(r.ns[1].Fd())}))
		for node := range 2 {
			h, err := r.ns[node].Netlink()
			check(t, err)
			link, err := h.LinkByName(attrs.Name)
			check(t, err)
			check(t, h.LinkSetUp(link))
			r.links[node][i] = link.Attrs().Index
		}
	}
	for node := range 2 {
		h, err := r.ns[node].Netlink()
		check(t, err)
		lo, err := h.LinkByName("lo")
		check(t, err)
		for _, a := range addresses[node] {
			check(t, h.AddrAdd(lo, &netlink.Addr{IPNet: host(a), Flags: unix.IFA_F_NODAD}))
		}
	}
	r.by(t, 0)
	check(t, r.ns[0].Do(func() (err error) {
		r.filter, err = New("test", Through(r.links[0][1]))
		return err
	}))
	return r
}

func host(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// by makes the nodes reach each other by a link.
func (r *rig) by(t *testing.T, link int) {
	t.Helper()
	for node := range 2 {
		h, err := r.ns[node].Netlink()
		check(t, err)
		there, err := r.ns[1-node].Netlink()
		check(t, err)
		far, err := there.LinkByIndex(r.links[1-node][link])
		check(t, err)
		for name, a := range addresses[1-node] {
			scope := netlink.SCOPE_UNIVERSE
			if a.Is4() {
				scope = netlink.SCOPE_LINK
			}
			check(t, h.NeighSet(&netlink.Neigh{
				LinkIndex: r.links[node][link], Family: family(a), State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: far.Attrs().HardwareAddr,
			}))
			check(t, h.RouteReplace(&netlink.Route{LinkIndex: r.links[node][link], Dst: host(a), Scope: scope, Src: addresses[node][name].AsSlice()}))
		}
	}
}

// send sends datagrams from a node to the other one, and counts those that come within a moment.
func (r *rig) send(t *testing.T, from int, name string, n int) (came int) {
	t.Helper()
	var in, out *net.UDPConn
	check(t, r.ns[1-from].Do(func() (err error) {
		in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addresses[1-from][name], 0)))
		return err
	}))
	defer in.Close()
	check(t, r.ns[from].Do(func() (err error) {
		local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(addresses[from][name], 0))
		out, err = net.DialUDP("udp", local, in.LocalAddr().(*net.UDPAddr))
		return err
	}))
	defer out.Close()
	for range n {
		if _, err := out.Write([]byte("plaintext")); err != nil && !errors.Is(err, unix.EPERM) { // which is how it is told of a filter
			t.Fatal(err)
		}
	}
	wait := 10 * time.Second // costs time only where something is missing
	if r.refused(t) > 0 {
		wait = 100 * time.Millisecond // over veth what comes has come
	}
	for came < n {
		in.SetReadDeadline(time.Now().Add(wait))
		if _, err := in.Read(make([]byte, 100)); errors.Is(err, os.ErrDeadlineExceeded) {
			return came
		} else if err != nil {
			t.Fatal(err)
		}
		came++
	}
	return came
}

// refused counts what was refused of all tunnels.
func (r *rig) refused(t *testing.T) (n uint64) {
	t.Helper()
	for tunnel := range r.filter.ids {
		k, err := r.filter.Refused(tunnel)
		check(t, err)
		n += k
	}
	return n
}

// Between the subnets of a tunnel nothing passes, in either direction and family, but by the link into tunnels; each tunnel
// counts its own; and all else passes.
func TestRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	prefixes := func(all ...string) (p []netip.Prefix) {
		for _, s := range all {
			p = append(p, netip.MustParsePrefix(s))
		}
		return p
	}
	const n = 5
	pass := func(when string, names ...string) {
		t.Helper()
		for _, name := range names {
			for from := range 2 {
				if came := r.send(t, from, name, n); came != n {
					t.Errorf("%s, from node %d, %s: %d of %d came", when, from, name, came, n)
				}
			}
		}
	}
	pass("no tunnels", "4", "6", "other")
	check(t, r.filter.Add(ipsec.Policy{Tunnel: "both", Local: prefixes("10.1.0.0/24", "fd00:1::/64"), Remote: prefixes("10.2.0.0/24", "fd00:2::/64")}))
	check(t, r.filter.Add(ipsec.Policy{Tunnel: "third", Local: prefixes("10.1.0.0/16"), Remote: prefixes("10.77.0.0/16", "10.2.0.0/30")}))
	if !r.filter.Has("both") || !r.filter.Has("third") || r.filter.Has("fourth") {
		t.Errorf("tunnels are %v", r.filter.ids)
	}
	pass("none of the tunnels'", "other")
	count := func(tunnel string, want uint64) {
		t.Helper()
		if got, err := r.filter.Refused(tunnel); err != nil || got != want {
			t.Errorf("tunnel %s refused %d, want %d, %v", tunnel, got, want, err)
		}
	}
	refuse := func(names ...string) {
		t.Helper()
		for _, name := range names {
			for from := range 2 {
				before := r.refused(t)
				r.send(t, from, name, 1) // so that the next does not wait
				if came := r.send(t, from, name, n); came != 0 || r.refused(t) != before+n+1 {
					t.Errorf("from node %d, %s: %d came, %d were refused", from, name, came, r.refused(t)-before)
				}
			}
		}
	}
	refuse("4", "6")
	count("both", 4*(n+1))
	count("third", 0)

	r.by(t, 1)
	pass("by the link into tunnels", "4", "6", "other")
	r.by(t, 0)

	check(t, r.filter.Remove("both"))
	if _, err := r.filter.Refused("both"); err == nil || r.filter.Has("both") {
		t.Errorf("it is still there, %v", err)
	}
	refuse("4") // the other tunnel's too
	count("third", 2*(n+1))
	pass("one tunnel is gone", "6", "other")
	check(t, r.filter.Remove("third"))
	pass("both are gone", "4", "6", "other")

	check(t, r.filter.Close())
	check(t, r.ns[0].Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := c.ListTables()
		if len(tables) > 0 {
			t.Errorf("tables are left: %d", len(tables))
		}
		return err
	}))
}

// What the kernel has not got, or not for us, is unavailable. What it is out of is not.
func TestNoFilter(t *testing.T) {
	t.Parallel()
	for want, all := range map[bool][]unix.Errno{
		true:  {unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EOPNOTSUPP, unix.ENOENT, unix.EINVAL, unix.EPERM, unix.EACCES},
		false: {unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.EINTR, unix.EBUSY, unix.EEXIST},
	} {
		for _, errno := range all {
			err := NoFilter(fmt.Errorf("flush: %w", errno))
			if errors.Is(err, ErrUnavailable) != want || errors.Is(err, errors.ErrUnsupported) != want || !errors.Is(err, errno) {
				t.Errorf("%v: %v", errno, err)
			}
		}
	}
}

// Any prefix can be asked for, also all addresses of a family at once.
func TestAddRemove(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	random := rand.New(rand.NewPCG(3, 4))
	all := []string{"0.0.0.0/0", "128.0.0.0/1", "255.255.255.255/32", "10.0.0.0/8", "10.1.0.0/16", "10.1.0.1/32", "::/0", "8000::/1", "fd00::/8",
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"}
	pick := func() (p []netip.Prefix) {
		for _, s := range all {
			if random.IntN(4) == 0 {
				p = append(p, netip.MustParsePrefix(s))
			}
		}
		return p
	}
	for i := range 30 {
		for _, name := range []string{"a", "b", "c"} {
			if r.filter.Has(name) {
				check(t, r.filter.Remove(name))
			} else if random.IntN(2) == 0 {
				p := ipsec.Policy{Tunnel: name, Local: pick(), Remote: pick()}
				if err := r.filter.Add(p); err != nil {
					t.Fatalf("round %d: %+v: %v", i, p, err)
				}
			}
		}
	}
	check(t, r.filter.Close())
}
