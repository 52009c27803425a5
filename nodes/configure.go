package nodes

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/topology"
)

// Configure makes ns the planned node: MTU, addresses, routes and forwarding; or the bridge of an access point or
// switch. The interfaces of its links must be there. Addresses work at once: none waits for duplicate address
// detection. On error the node is half configured; the caller gives ns up.
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
	if node.Forward {
		if err := ns.Set(netns.Sysctl{Key: "net/ipv4/ip_forward", Value: "1"}); err != nil {
			return err
		}
		if err := ns.Set(netns.Sysctl{Key: "net/ipv6/conf/all/forwarding", Value: "1"}); err != nil && !noIPv6(err) {
			return err
		}
	}
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
	return nil
}

// openInterface finds a planned interface and gives it its MTU.
func openInterface(h *netlink.Handle, i topology.Interface) (netlink.Link, error) {
	l, err := h.LinkByName(i.Name)
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

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// noIPv6 tells the failure to set an IPv6 parameter because the kernel has no IPv6; its addresses then fail by themselves.
func noIPv6(err error) bool { return errors.Is(err, os.ErrNotExist) }
