package hygiene

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
)

// takeNetwork sees what is configured in the network namespace of this process.
func (s *Snapshot) takeNetwork() error {
	ns, err := netns.Current()
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := ns.Netlink()
	if err != nil {
		return err
	}
	names := map[int]string{}
	look := func(what string, f func() error) error {
		err := f()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) {
			s.Unseen = append(s.Unseen, fmt.Sprintf("%s: %v", what, err))
			return nil
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", what, err)
		}
		return nil
	}
	return errors.Join(
		look("interfaces", func() error {
			links, err := retry(h.LinkList)
			for _, l := range links {
				names[l.Attrs().Index] = l.Attrs().Name
				s.add(network, fmt.Sprintf("interface %d %s", l.Attrs().Index, l.Attrs().Name), detail{where: l.Type()})
			}
			return err
		}),
		look("addresses", func() error {
			addrs, err := retry(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
			for _, a := range addrs {
				s.add(network, fmt.Sprintf("address %s of %s", a.IPNet, names[a.LinkIndex]), detail{})
			}
			return err
		}),
		look("routes", func() error {
			routes, err := retry(func() ([]netlink.Route, error) {
				return h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
			})
			for _, r := range routes {
				s.add(network, fmt.Sprintf("route in table %d to %v by %v %s", r.Table, r.Dst, r.Gw, names[r.LinkIndex]), detail{})
			}
			return err
		}),
		look("rules", func() error {
			rules, err := retry(func() ([]netlink.Rule, error) { return h.RuleList(netlink.FAMILY_ALL) })
			for _, r := range rules {
				s.add(network, "rule "+r.String(), detail{})
			}
			return err
		}),
		look("XFRM states", func() error {
			states, err := retry(func() ([]netlink.XfrmState, error) { return h.XfrmStateList(netlink.FAMILY_ALL) })
			for _, x := range states { // never its String: it holds keys
				s.add(network, fmt.Sprintf("XFRM state %s → %s %s spi %#08x", x.Src, x.Dst, x.Proto, x.Spi), detail{})
			}
			return err
		}),
		look("XFRM policies", func() error {
			policies, err := retry(func() ([]netlink.XfrmPolicy, error) { return h.XfrmPolicyList(netlink.FAMILY_ALL) })
			for _, p := range policies {
				s.add(network, fmt.Sprintf("XFRM policy %s %s → %s", p.Dir, p.Src, p.Dst), detail{})
			}
			return err
		}),
		look("nftables tables", func() error {
			var tables []*nftables.Table
			err := ns.Do(func() error {
				conn, err := nftables.New()
				if err == nil {
					tables, err = conn.ListTables()
				}
				return err
			})
			for _, t := range tables {
				s.add(network, fmt.Sprintf("nftables table %s of family %d", t.Name, t.Family), detail{})
			}
			return err
		}),
	)
}

// retry asks again when the answer changed while it was given.
func retry[T any](list func() ([]T, error)) ([]T, error) {
	for range 10 {
		if out, err := list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return list()
}
