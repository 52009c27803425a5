package links

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"pqlab/internal/netns"
	"pqlab/links/medium"
	"pqlab/links/wire"
	"pqlab/topology"
)

// wired makes links of TAP interfaces, between which this process passes packets on as a medium.Link has it: the whole
// shape, whatever the kernel has.
type wired struct{ kernel }

func (wired) Name() string { return "wire" }

func (w wired) Lacks(link topology.PlannedLink) *LinkNeeds {
	if link.WiFi != nil {
		return &LinkNeeds{Link: link.Name, Needs: needsOf(link), Missing: []string{"a wire knows no airtime"}}
	}
	err := w.tap()
	if err == nil {
		return nil
	}
	needs := needsOf(link)
	if needs == nil {
		needs = []string{"TAP interfaces"}
	}
	return &LinkNeeds{Link: link.Name, Needs: needs, Missing: []string{err.Error()}}
}

// driven is a link whose packets this process passes on.
type driven struct {
	plan   topology.PlannedLink
	medium *medium.Link
	wire   *wire.Wire
	ends   [2]end
}

// backlog is how many packets an interface holds for the wire, in which time the wire must be run: 10 ms of a million a
// second.
const backlog = 10000

func (w wired) connect(link topology.PlannedLink, a, b *netns.Namespace) (_ body, err error) {
	d := &driven{plan: link, medium: medium.NewLink(
		[2]topology.Shape{link.Shape, link.Shape}, link.MTU, [2]uint64{directionSeed(link.Seed, 0), directionSeed(link.Seed, 1)})}
	if d.wire, err = wire.New(d.medium); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	// The port of each end is its side.
	for side, ns := range []*netns.Namespace{a, b} {
		name := [2]topology.End{link.A, link.B}[side].Interface
		if _, err := d.wire.Attach(ns, name); err != nil {
			return nil, fmt.Errorf("%s: %w", endName(link, side), err)
		}
		d.ends[side].ns = ns
		h, err := ns.Netlink()
		if err != nil {
			return nil, err
		}
		tap, err := h.LinkByName(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", endName(link, side), err)
		}
		d.ends[side].index = tap.Attrs().Index
		if err := h.LinkSetMTU(tap, link.MTU); err != nil {
			return nil, fmt.Errorf("%s: MTU %d: %w", endName(link, side), link.MTU, err)
		}
		if err := h.LinkSetTxQLen(tap, backlog); err != nil {
			return nil, fmt.Errorf("%s: queue of %d: %w", endName(link, side), backlog, err)
		}
		if err := h.LinkSetUp(tap); err != nil {
			return nil, fmt.Errorf("%s up: %w", endName(link, side), err)
		}
	}
	return d, nil
}

func (d *driven) become(now, next [2]topology.Shape) error {
	err := d.wire.Do(func(at time.Duration) {
		for side, s := range next {
			if !reflect.DeepEqual(s, now[side]) { // the other direction's random choices go on
				d.medium.Set(at, side, s)
			}
		}
	})
	if err != nil {
		return fmt.Errorf("link %s: %w", d.plan.Name, err)
	}
	return nil
}

func (d *driven) state() State {
	s := State{Shaper: wired{}.Name(), Seeded: true}
	for side := range s.Wire {
		s.Wire[side].Missed = d.missed(side)
	}
	// Of a wire that is closed nothing more is known.
	_ = d.wire.Do(func(time.Duration) {
		for side := range s.Wire {
			s.Wire[side].Counters = d.medium.Counters(side)
		}
	})
	for side := range s.Wire {
		s.Wire[side].Lateness, _ = d.wire.Lateness(1 - side) // what one end sends the other gets
	}
	return s
}

// missed asks the kernel what it dropped before the wire could read it; 0 where it cannot be asked any more.
func (d *driven) missed(side int) uint64 {
	h, err := d.ends[side].ns.Netlink()
	if err != nil {
		return 0
	}
	tap, err := h.LinkByIndex(d.ends[side].index)
	if err != nil || tap.Attrs().Statistics == nil {
		return 0
	}
	return tap.Attrs().Statistics.TxDropped
}

func (d *driven) close() error { return d.wire.Close() }
