package links

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"pqlab/links/medium"
	"pqlab/links/wifi"
	"pqlab/links/wire"
	"pqlab/topology"
)

// air has the Wi-Fi cells of one lab: the links at an access point share a medium, and so a wire.
type air struct {
	stations map[string][]topology.PlannedLink // by access point, in the order in which the cell numbers them

	mu    sync.Mutex
	cells map[string]*cell // that have links now, by access point
}

// cell is a wire of many links.
type cell struct {
	wifi  *wifi.Medium
	wire  *wire.Wire
	links int
}

// newAir knows all the stations that will be.
func newAir(links []topology.PlannedLink) *air {
	a := &air{stations: map[string][]topology.PlannedLink{}, cells: map[string]*cell{}}
	for _, l := range links {
		if l.Cell != nil {
			a.stations[l.Cell.AP] = append(a.stations[l.Cell.AP], l)
		}
	}
	return a
}

// join makes link a part of its access point's cell, which is made for the first one.
func (a *air) join(link topology.PlannedLink) (*wire.Wire, model, error) {
	stations := a.stations[link.Cell.AP]
	number := slices.IndexFunc(stations, func(l topology.PlannedLink) bool { return l.Name == link.Name })
	if number < 0 {
		return nil, nil, fmt.Errorf("access point %s: the shaper was chosen without this link", link.Cell.AP)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.cells[link.Cell.AP]
	if c == nil {
		config, err := wifi.FromPlan(stations)
		if err != nil {
			return nil, nil, err
		}
		c = &cell{}
		if c.wifi, err = wifi.New(config); err != nil {
			return nil, nil, err
		}
		if c.wire, err = wire.New(c.wifi); err != nil {
			return nil, nil, err
		}
		a.cells[link.Cell.AP] = c
	}
	c.links++
	return c.wire, &station{plan: link, number: number, cell: c, air: a, now: *link.WiFi}, nil
}

// station is a link's part of a cell.
type station struct {
	plan     topology.PlannedLink
	number   int
	cell     *cell
	air      *air
	now      topology.Station // what the plan's has become; the Link's lock guards it
	released sync.Once
}

func (s *station) port(side int) int { return wifi.Port(s.number, s.plan, side) }

func (s *station) set(at time.Duration, _, next [2]topology.Shape) error {
	return s.become(at, next, s.now)
}

// become changes the station, and the delays, which are all that a link with airtime has of a shape.
func (s *station) become(at time.Duration, next [2]topology.Shape, to topology.Station) error {
	for _, shape := range next {
		if shape.Delay = 0; !bare(shape) {
			return &UnsupportedError{Up: true, Links: []LinkNeeds{{
				Link: s.plan.Name, Needs: append(needsRate(shape), shape.Impairments()...), Missing: []string{"airtime makes its rate, loss and jitter"},
			}}}
		}
	}
	plan := s.plan
	plan.WiFi = &to
	described, err := wifi.StationOf(plan, next)
	if err != nil {
		return err
	}
	return s.cell.wifi.SetStation(at, s.number, described)
}

func (s *station) counters(side int) medium.Counters { return s.cell.wifi.Counters(s.port(side)) }

// release ends the cell with its last link.
func (s *station) release(abandon bool) (err error) {
	s.released.Do(func() {
		s.air.mu.Lock()
		defer s.air.mu.Unlock()
		if s.cell.links--; s.cell.links == 0 {
			delete(s.air.cells, s.plan.Cell.AP)
			err = line{wire: s.cell.wire}.release(abandon)
		}
	})
	return err
}

// Cell is what the Wi-Fi cell of a link with airtime has done, and which of its stations is the link's. ok is false for
// any other link, and for one that is closed.
func (l *Link) Cell() (c wifi.Cell, number int, ok bool) {
	d, s, is := l.station()
	if !is {
		return c, 0, false
	}
	err := d.wire.Do(func(now time.Duration) { c = s.cell.wifi.SnapshotAt(now) })
	return c, s.number, err == nil
}
