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
}

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
		h, err := ns.Netlink()
		if err != nil {
			return nil, err
		}
		tap, err := h.LinkByName(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", endName(link, side), err)
		}
		if err := h.LinkSetMTU(tap, link.MTU); err != nil {
			return nil, fmt.Errorf("%s: MTU %d: %w", endName(link, side), link.MTU, err)
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
	for side := range s.Lateness {
		// What one end sends the other gets. A wire that is closed was not late.
		s.Lateness[side], _ = d.wire.Lateness(1 - side)
	}
	return s
}

func (d *driven) close() error { return d.wire.Close() }
