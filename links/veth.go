package links

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/topology"
)

// pair is two veth interfaces, each shaped by queueing disciplines.
type pair struct {
	plan    topology.PlannedLink
	ends    [2]end
	choices queueing   // what may shape it
	now     discipline // what does; nil: nothing
}

func (p *pair) state() State {
	if p.now == nil {
		return State{Shaper: none{}.Name()}
	}
	return State{Shaper: p.now.Name(), Seeded: p.now.seeded()}
}

func (p *pair) become(now, next [2]topology.Shape) error {
	d, lacks := p.choices.pick(p.plan.Name, next)
	if lacks != nil {
		lacks.Instead = []string{p.choices.wired.Name()}
		if w := p.choices.wired.Lacks(p.plan); w != nil {
			lacks.Missing = union(lacks.Missing, w.Missing)
		}
		return &UnsupportedError{Links: []LinkNeeds{*lacks}, Up: true}
	}
	before, after := queuesOf(p.now, p.plan, now), queuesOf(d, p.plan, next)
	for side, e := range p.ends {
		err := e.become(before[side], after[side])
		if err == nil {
			continue
		}
		err = fmt.Errorf("link %s: %s: %w", p.plan.Name, p.end(side), err)
		for s, e := range p.ends[:side+1] {
			if errBack := e.reset(before[s]); errBack != nil {
				err = errors.Join(err, fmt.Errorf("link %s: %s: and back: %w", p.plan.Name, p.end(s), errBack))
			}
		}
		return err
	}
	p.now = d
	return nil
}

// end names an end in messages.
func (p *pair) end(side int) string { return endName(p.plan, side) }

func endName(link topology.PlannedLink, side int) string {
	e := [2]topology.End{link.A, link.B}[side]
	return fmt.Sprintf("node %s: %s", e.Node, e.Interface)
}

// newVeth makes a link of two veth interfaces, neither of which is ever in another namespace than its own. If shape is
// not nil it is called for each end before that comes up, so that no packet passes unshaped (and because replacing the
// queue of an interface that is up makes the kernel wait for a grace period).
func newVeth(link topology.PlannedLink, a, b *netns.Namespace, shape func(side int, e end) error) (_ *pair, err error) {
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
	made := &pair{plan: link, ends: [2]end{{a, veth.Index}, {b, 0}}}
	defer func() {
		if err != nil {
			err = errors.Join(err, made.close())
		}
	}()
	peer, err := hb.LinkByName(link.B.Interface)
	if err != nil {
		return nil, fmt.Errorf("node %s: %s: %w", link.B.Node, link.B.Interface, err)
	}
	made.ends[1].index = peer.Attrs().Index
	for side, l := range []netlink.Link{veth, peer} {
		if shape != nil {
			if err := shape(side, made.ends[side]); err != nil {
				return nil, fmt.Errorf("%s: %w", made.end(side), err)
			}
		}
		if err := []*netlink.Handle{ha, hb}[side].LinkSetUp(l); err != nil {
			return nil, fmt.Errorf("%s up: %w", made.end(side), err)
		}
	}
	return made, nil
}

func (p *pair) close() error {
	h, err := p.ends[0].ns.Netlink()
	if errors.Is(err, netns.ErrClosed) {
		return nil // given up together with its node
	}
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Index = p.ends[0].index
	if err := h.LinkDel(&netlink.GenericLink{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}
