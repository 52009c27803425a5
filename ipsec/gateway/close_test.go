package gateway_test

import (
	"errors"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/ipsec"
	"pqlab/ipsec/gateway"
	"pqlab/ipsec/gateway/port"
)

// state is what a namespace and this process hold.
type state struct {
	links, routes, rules, tables string
	fds                          int
}

func (p *pair) state(t testing.TB, i int) (s state) {
	t.Helper()
	h, err := p.ns[i].Netlink()
	check(t, err)
	links, err := h.LinkList()
	check(t, err)
	for _, l := range links {
		s.links += l.Attrs().Name + " "
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		check(t, err)
		for _, r := range routes {
			s.routes += r.String() + "\n"
		}
		rules, err := h.RuleList(family)
		check(t, err)
		for _, r := range rules {
			s.rules += r.String() + "\n"
		}
	}
	s.tables = tables(t, p.ns[i])
	fds, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	s.fds = len(fds)
	return s
}

// TestCloseLeavesNothing is not parallel: it counts descriptors and goroutines of the process.
func TestCloseLeavesNothing(t *testing.T) {
	p := namespaces(t)
	for _, kind := range kinds {
		p.cycle(t, kind) // what the process opens once and keeps
		before := [2]state{p.state(t, 0), p.state(t, 1)}
		goroutines := runtime.NumGoroutine()
		for range 3 {
			p.cycle(t, kind)
		}
		eventually(t, "the goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
		for i, want := range before {
			var got state
			eventually(t, "descriptors are closed", func() bool {
				got = p.state(t, i)
				return got.fds <= want.fds
			})
			got.fds = want.fds
			if got != want {
				t.Errorf("%s: node %d has %+v, had %+v", kind, i, got, want)
			}
		}
	}
}

// cycle makes gateways, uses them and closes them.
func (p *pair) cycle(t *testing.T, kind port.Kind) {
	t.Helper()
	t.Run("cycle", func(t *testing.T) {
		p.start(t, kind)
		for i, gw := range p.gw {
			for _, v6 := range []bool{false, true} {
				pol := policy(i, v6, ipsec.Encapsulation(i))
				if v6 {
					pol.Tunnel = "other"
					pol.Local, pol.Remote = []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")}, []netip.Prefix{netip.MustParsePrefix("10.78.0.0/24")}
				}
				check(t, gw.AddTunnel(pol))
			}
		}
		p.key(t, 0x900, nil)
		out := dial(t, p, 0, inner4[0], netip.AddrPortFrom(inner4[1], 9))
		_, err := out.Write([]byte("x"))
		check(t, err)
		for _, gw := range p.gw {
			check(t, gw.Close())
			check(t, gw.Close())
			if _, open := <-gw.Expiries(); open {
				t.Error("Expiries is not closed")
			}
			if err := gw.AddTunnel(policy(0, false, ipsec.UDP)); !errors.Is(err, gateway.ErrClosed) {
				t.Errorf("AddTunnel after Close: %v", err)
			}
		}
	})
}

// tables lists the nftables tables of a namespace.
func tables(t testing.TB, ns *netns.Namespace) (names string) {
	t.Helper()
	check(t, ns.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		list, err := conn.ListTables()
		for _, table := range list {
			names += table.Name + " "
		}
		return err
	}))
	return names
}
