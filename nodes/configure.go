package nodes

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/topology"
)

// Configure makes ns the planned node: MTU, addresses, routes and forwarding; or the bridge of an access point or
// switch. The links that end in it must have been made. When it returns the node's addresses answer: none waits for
// duplicate address detection, and no first packet is lost. On error the node is half configured; the caller gives ns up.
func Configure(ns *netns.Namespace, node topology.PlannedNode) error {
	h, err := ns.Netlink()
	if err != nil {
		return fmt.Errorf("node %s: %w", node.Name, err)
	}
	if node.Bridge {
		err = bridge(ns, h, node)
	} else {
		err = route(ns, h, node)
	}
	if err != nil {
		return fmt.Errorf("node %s: %w", node.Name, err)
	}
	return nil
}

// bridge joins the node's interfaces at the Ethernet level. STP is off, so ports forward from the first packet.
func bridge(ns *netns.Namespace, h *netlink.Handle, node topology.PlannedNode) error {
	// A switch has no addresses of its own, not even link-local ones.
	if err := ns.Set(
		netns.Sysctl{Key: "net/ipv6/conf/all/disable_ipv6", Value: "1"},
		netns.Sysctl{Key: "net/ipv6/conf/default/disable_ipv6", Value: "1"},
	); err != nil && !noIPv6(err) {
		return err
	}
	snooping := false // it would hold IPv6 neighbour discovery back until a querier is heard
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeName(node.Interfaces)
	br := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := h.LinkAdd(br); err != nil {
		return fmt.Errorf("bridge %s: %w", br.Name, err)
	}
	for _, i := range node.Interfaces {
		port, err := openInterface(h, i)
		if err != nil {
			return err
		}
		if err := h.LinkSetMaster(port, br); err != nil {
			return fmt.Errorf("%s: join bridge %s: %w", i.Name, br.Name, err)
		}
	}
	if err := h.LinkSetUp(br); err != nil {
		return fmt.Errorf("bridge %s: up: %w", br.Name, err)
	}
	return nil
}

// bridgeName is one that no interface of the node has.
func bridgeName(interfaces []topology.Interface) string {
	for n := 0; ; n++ {
		name := "br" + strconv.Itoa(n)
		if !slices.ContainsFunc(interfaces, func(i topology.Interface) bool { return i.Name == name }) {
			return name
		}
	}
}

// route gives a node its addresses and routes.
func route(ns *netns.Namespace, h *netlink.Handle, node topology.PlannedNode) error {
	for _, i := range node.Interfaces {
		l, err := openInterface(h, i)
		if err != nil {
			return err
		}
		for _, a := range i.Addresses {
			addr := &netlink.Addr{IPNet: ipNet(a)}
			if a.Addr().Is6() {
				addr.Flags = unix.IFA_F_NODAD
			}
			if err := h.AddrAdd(l, addr); err != nil {
				return fmt.Errorf("%s: address %s: %w", i.Name, a, err)
			}
		}
	}
	for _, r := range node.Routes {
		planned := &netlink.Route{Dst: ipNet(r.Dst.Masked()), Gw: r.Via.AsSlice(), Src: r.Src.AsSlice()}
		if err := h.RouteAdd(planned); err != nil {
			return fmt.Errorf("route %s via %s: %w", r.Dst, r.Via, err)
		}
	}
	return ns.Do(func() error {
		if node.Forward {
			if err := netns.SetHere(
				netns.Sysctl{Key: "net/ipv4/ip_forward", Value: "1"},
				netns.Sysctl{Key: "net/ipv6/conf/all/forwarding", Value: "1"},
			); err != nil && !noIPv6(err) {
				return err
			}
		}
		return answering(node.Interfaces)
	})
}

// openInterface finds a planned interface, waits until it sends, and gives it its MTU.
func openInterface(h *netlink.Handle, i topology.Interface) (l netlink.Link, err error) {
	// The kernel notices by itself, but some time later, that the far end has come up, and drops packets until then.
	err = settle(func() (bool, error) {
		l, err = h.LinkByName(i.Name)
		return err == nil && (l.Attrs().OperState == netlink.OperUp || l.Attrs().OperState == netlink.OperUnknown), err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", i.Name, err)
	}
	if i.MTU != 0 && i.MTU != l.Attrs().MTU {
		if err := h.LinkSetMTU(l, i.MTU); err != nil {
			return nil, fmt.Errorf("%s: MTU %d: %w", i.Name, i.MTU, err)
		}
	}
	return l, nil
}

// settled is how long the kernel may take to do what it does in the background. It takes less than a millisecond, and on an
// emulated processor that is not given its time, some seconds.
const settled = 15 * time.Second

// errUnsettled says that it took longer.
var errUnsettled = errors.New("is not ready after " + settled.String())

// settle waits until ready, and gives up when that fails.
func settle(ready func() (bool, error)) error {
	pause := 50 * time.Microsecond
	for deadline := time.Now().Add(settled); ; time.Sleep(pause) {
		ok, err := ready()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errUnsettled
		}
		pause = min(2*pause, 5*time.Millisecond)
	}
}

// answering waits until the node answers neighbours that ask for its IPv6 addresses: the kernel joins the groups in
// which they ask (RFC 4291 section 2.7.1) some time after it has taken the address, and a question missed is repeated
// after a second only.
//
// It is called inside the node's namespace.
func answering(interfaces []topology.Interface) error {
	type membership struct{ name, group string }
	var want []membership
	for _, i := range interfaces {
		for _, a := range i.Addresses {
			if b := a.Addr().As16(); a.Addr().Is6() && i.Name != "lo" {
				want = append(want, membership{i.Name, fmt.Sprintf("ff0200000000000000000001ff%x", b[13:])})
			}
		}
	}
	if want == nil {
		return nil
	}
	return settle(func() (bool, error) {
		table, err := os.ReadFile("/proc/thread-self/net/igmp6")
		if err != nil {
			return false, err
		}
		have := map[membership]bool{}
		for line := range strings.Lines(string(table)) {
			if f := strings.Fields(line); len(f) > 2 {
				have[membership{f[1], f[2]}] = true
			}
		}
		return !slices.ContainsFunc(want, func(m membership) bool { return !have[m] }), nil
	})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// noIPv6 tells the failure to set an IPv6 parameter because the kernel has no IPv6; its addresses then fail by themselves.
func noIPv6(err error) bool { return errors.Is(err, os.ErrNotExist) }
