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

// wired makes links of TAP interfaces, between which this process passes packets on as a model has it: the whole shape,
// whatever the kernel has, and airtime.
type wired struct {
	kernel
	air *air
}

func (wired) Name() string { return "wire" }

func (w wired) Lacks(link topology.PlannedLink) *LinkNeeds {
	err := w.tap()
	if err == nil {
		return nil
	}
	needs := link.Needs(link.Shape)
	if needs == nil {
		needs = []string{"TAP interfaces"}
	}
	return &LinkNeeds{Link: link.Name, Needs: needs, Missing: []string{err.Error()}}
}

// driven is a link whose packets this process passes on.
type driven struct {
	plan  topology.PlannedLink
	wire  *wire.Wire
	model model
	ends  [2]end

	history *history // nil: fates are neither recorded nor replayed
}

// model is a medium, or the part of it that a link has.
type model interface {
	// port of a side of the link.
	port(side int) int
	// set changes the shapes, on the wire's thread. After an error nothing is changed.
	set(at time.Duration, now, next [2]topology.Shape) error
	counters(side int) medium.Counters
	// release gives the wire up, and if it abandons it leaves the interfaces to their namespaces.
	release(abandon bool) error
}

func (w wired) connect(link topology.PlannedLink, a, b *netns.Namespace) (_ body, err error) {
	d := &driven{plan: link, ends: [2]end{{ns: a}, {ns: b}}}
	if link.WiFi != nil {
		d.wire, d.model, err = w.air.join(link)
	} else {
		m := newMedium(link)
		d.wire, err = wire.New(m)
		d.model = line{m, d.wire}
	}
	if err != nil {
		return nil, err
	}
	if err := d.attach(); err != nil {
		return nil, err
	}
	return d, nil
}

// attach makes the interfaces, or gives the wire up.
func (d *driven) attach() error {
	for side := range d.ends {
		if err := d.attachEnd(side); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", endName(d.plan, side), err), d.close())
		}
	}
	return nil
}

// backlog is how many packets an interface holds for the wire, in which time the wire must be run: 10 ms of a million a
// second.
const backlog = 10000

// attachEnd makes the interface of a side.
func (d *driven) attachEnd(side int) error {
	e := &d.ends[side]
	name := [2]topology.End{d.plan.A, d.plan.B}[side].Interface
	if err := d.wire.Attach(d.model.port(side), e.ns, name); err != nil {
		return err
	}
	h, err := e.ns.Netlink()
	if err != nil {
		return err
	}
	tap, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	e.index = tap.Attrs().Index
	if err := h.LinkSetMTU(tap, d.plan.MTU); err != nil {
		return fmt.Errorf("MTU %d: %w", d.plan.MTU, err)
	}
	if err := h.LinkSetTxQLen(tap, backlog); err != nil {
		return fmt.Errorf("queue of %d: %w", backlog, err)
	}
	if err := h.LinkSetUp(tap); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	return nil
}

func (d *driven) become(now, next [2]topology.Shape) error {
	return d.do(func(at time.Duration) error { return d.model.set(at, now, next) })
}

// do changes the model on the wire's thread.
func (d *driven) do(change func(at time.Duration) error) error {
	var errChange error
	err := d.wire.Do(func(at time.Duration) { errChange = change(at) })
	if err := errors.Join(err, errChange); err != nil {
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
			s.Wire[side].Counters = d.model.counters(side)
		}
	})
	for side := range s.Wire {
		s.Wire[side].Lateness, _ = d.wire.Lateness(d.model.port(1 - side)) // what one end sends the other gets
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

func (d *driven) close() error {
	return errors.Join(d.history.leave(d.wire), d.wire.Detach(d.model.port(0)), d.wire.Detach(d.model.port(1)), d.model.release(false))
}

// oneLink is the medium of a link by itself.
type oneLink interface {
	medium.Medium
	Counters(port int) medium.Counters
}

// line is a wire of one link. The port of each end is its side.
type line struct {
	oneLink
	wire *wire.Wire
}

func newMedium(link topology.PlannedLink) *medium.Link {
	return medium.NewLink([2]topology.Shape{link.Shape, link.Shape}, link.MTU, [2]uint64{directionSeed(link.Seed, 0), directionSeed(link.Seed, 1)})
}

func (l line) port(side int) int { return side }

func (l line) set(at time.Duration, now, next [2]topology.Shape) error {
	m, ok := l.oneLink.(*medium.Link)
	if !ok {
		return ErrReplay
	}
	for side, s := range next {
		if !reflect.DeepEqual(s, now[side]) { // the other direction's random choices go on
			m.Set(at, side, s)
		}
	}
	return nil
}

func (l line) counters(side int) medium.Counters { return l.Counters(side) }

func (l line) release(abandon bool) error {
	if abandon {
		return l.wire.Abandon()
	}
	return l.wire.Close()
}
