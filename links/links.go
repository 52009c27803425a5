// Package links makes the links of a lab: pairs of interfaces with both ends in the nodes' namespaces, given their rate
// by a Shaper.
package links

import (
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/topology"
)

// Link is a link that exists. It lives until Close, or until the namespace of either end is freed. Its methods may be
// called from any goroutine.
type Link struct {
	Name    string
	Ignored []string // what the topology wants of it and it does not do, because no shaping was asked for: "delay 2ms"

	plan    topology.PlannedLink
	ends    [2]end
	choices *queueing // what may shape it; nil: nothing

	mu    sync.Mutex
	state State
}

// State is how a link is shaped.
type State struct {
	Shaper string            // what does it: "tbf", "netem", or "none"
	Shapes [2]topology.Shape // of what A sends, and of what B sends
	Seeded bool              // whether its randomness is that of the link's seed, if there is any
}

// State tells how the link is shaped now.
func (l *Link) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// ErrUnshaped is wrapped by Set's error for a link that was made with the shaper "none".
var ErrUnshaped = errors.New("was made without shaping")

// Set changes the shapes of what A sends and of what B sends to what change makes of those that they have. Both are
// changed, or after an error, which may be that of change, none is. What the shaper that made the link cannot give is an *UnsupportedError. What is on its way keeps its delay, and what comes
// after it does not overtake it; but a change of the shaper, which "auto" may make, drops what is on its way. Random
// choices begin anew from the seed.
func (l *Link) Set(change func(now [2]topology.Shape) (next [2]topology.Shape, err error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.choices == nil {
		return fmt.Errorf("link %s: %w", l.Name, ErrUnshaped)
	}
	shapes, err := change(l.state.Shapes)
	if err != nil {
		return err
	}
	d, lacks := l.choices.pick(l.Name, shapes)
	if lacks != nil {
		return &UnsupportedError{Links: []LinkNeeds{*lacks}}
	}
	now := queuesOf(l.choices.named(l.state.Shaper), l.plan, l.state.Shapes)
	next := queuesOf(d, l.plan, shapes)
	for side, e := range l.ends {
		err := e.become(now[side], next[side])
		if err == nil {
			continue
		}
		err = fmt.Errorf("link %s: %s: %w", l.Name, l.end(side), err)
		for s, e := range l.ends[:side+1] {
			if errBack := e.reset(now[s]); errBack != nil {
				err = errors.Join(err, fmt.Errorf("link %s: %s: and back: %w", l.Name, l.end(s), errBack))
			}
		}
		return err
	}
	l.state = l.choices.stateOf(d, shapes)
	return nil
}

// end names an end in messages.
func (l *Link) end(side int) string {
	e := [2]topology.End{l.plan.A, l.plan.B}[side]
	return fmt.Sprintf("node %s: %s", e.Node, e.Interface)
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
func newVeth(link topology.PlannedLink, a, b *netns.Namespace, shape func(side int, e end) error) (_ *Link, err error) {
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
	made := &Link{Name: link.Name, plan: link, ends: [2]end{{a, veth.Index}, {b, 0}}, state: State{Shaper: none{}.Name()}}
	defer func() {
		if err != nil {
			err = errors.Join(err, made.Close())
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

// Close removes the link from both nodes. One that is gone already is no error.
func (l *Link) Close() error {
	h, err := l.ends[0].ns.Netlink()
	if errors.Is(err, netns.ErrClosed) {
		return nil // given up together with its node
	}
	if err != nil {
		return fmt.Errorf("link %s: %w", l.Name, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Index = l.ends[0].index
	if err := h.LinkDel(&netlink.GenericLink{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("link %s: remove: %w", l.Name, err)
	}
	return nil
}
