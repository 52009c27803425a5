// Package links makes the links of a lab: pairs of interfaces with both ends in the nodes' namespaces, given their rate
// by a Shaper.
package links

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/topology"
)

// Link is a link that exists. It lives until Close, or until the namespace of either end is freed.
type Link struct {
	Name    string
	Shaper  string   // what shapes it: "tbf", or "none"
	Ignored []string // what the topology wants of it and it does not do, because no shaping was asked for: "delay 2ms"

	a     *netns.Namespace
	index int // of the end in a
}

// Make makes link between its ends' namespaces, with the planned interface names and MTU, shaped in both directions, and
// up. What the shaper cannot give the link is an *UnsupportedError. On error nothing is left.
func Make(link topology.PlannedLink, a, b *netns.Namespace, shaper Shaper) (*Link, error) {
	if lacks := shaper.Lacks(link); lacks != nil {
		return nil, &UnsupportedError{Links: []LinkNeeds{*lacks}}
	}
	made, err := shaper.connect(link, a, b)
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", link.Name, err)
	}
	return made, nil
}

// newVeth makes a link of two veth interfaces, neither of which is ever in another namespace than its own. If shape is
// not nil it is called for each end before that comes up, so that no packet passes unshaped (and because replacing the
// queue of an interface that is up makes the kernel wait for a grace period).
func newVeth(link topology.PlannedLink, a, b *netns.Namespace, shape func(*netlink.Handle, int) error) (_ *Link, err error) {
	ha, err := a.Netlink()
	if err != nil {
		return nil, err
	}
	hb, err := b.Netlink()
	if err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = link.A.Interface
	attrs.MTU = link.MTU
	veth := netlink.NewVeth(attrs)
	veth.PeerName = link.B.Interface
	veth.PeerMTU = uint32(link.MTU)
	veth.PeerNamespace = netlink.NsFd(b.Fd())
	if err := ha.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("veth %s (node %s) to %s (node %s): %w",
			link.A.Interface, link.A.Node, link.B.Interface, link.B.Node, err)
	}
	made := &Link{Name: link.Name, Shaper: "none", a: a, index: veth.Index}
	defer func() {
		if err != nil {
			err = errors.Join(err, made.Close())
		}
	}()
	peer, err := hb.LinkByName(link.B.Interface)
	if err != nil {
		return nil, fmt.Errorf("node %s: %s: %w", link.B.Node, link.B.Interface, err)
	}
	for _, end := range []struct {
		topology.End
		handle *netlink.Handle
		link   netlink.Link
	}{{link.A, ha, veth}, {link.B, hb, peer}} {
		if shape != nil {
			if err := shape(end.handle, end.link.Attrs().Index); err != nil {
				return nil, fmt.Errorf("node %s: %s: %w", end.Node, end.Interface, err)
			}
		}
		if err := end.handle.LinkSetUp(end.link); err != nil {
			return nil, fmt.Errorf("node %s: %s up: %w", end.Node, end.Interface, err)
		}
	}
	return made, nil
}

// Close removes the link from both nodes. One that is gone already is no error.
func (l *Link) Close() error {
	h, err := l.a.Netlink()
	if errors.Is(err, netns.ErrClosed) {
		return nil // given up together with its node
	}
	if err != nil {
		return fmt.Errorf("link %s: %w", l.Name, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Index = l.index
	if err := h.LinkDel(&netlink.GenericLink{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("link %s: remove: %w", l.Name, err)
	}
	return nil
}
