// Package links makes the links of a lab: pairs of interfaces with both ends in the nodes' namespaces, given their rate,
// delay and losses by a Shaper.
package links

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"pqlab/internal/netns"
	"pqlab/links/medium"
	"pqlab/links/wire"
	"pqlab/topology"
)

// Link is a link that exists. It lives until Close, or, unless it is Driven, until the namespace of either end is freed.
// Its methods may be called from any goroutine.
type Link struct {
	Name    string
	Ignored []string // what the topology wants of it and it does not do, because no shaping was asked for: "delay 2ms"

	mu     sync.Mutex
	shapes [2]topology.Shape
	body   body
}

// body is what a link is made of.
type body interface {
	// become gives the link other shapes, or, after an error, leaves it as it is.
	become(now, next [2]topology.Shape) error
	// state is without the shapes.
	state() State
	close() error
}

// State is how a link is shaped.
type State struct {
	Shaper string            // what does it: "tbf", "netem", "wire", or "none"
	Shapes [2]topology.Shape // of what A sends, and of what B sends
	Seeded bool              // whether its randomness is that of the link's seed, if there is any

	// Station is that of a link with airtime, as it was last described; else nil.
	Station *topology.Station

	// Wire is what became of what A sent, and of what B sent, over a wire; else zero.
	Wire [2]Wire
}

// Wire is how one direction of a wire has fared since the link was made.
type Wire struct {
	medium.Counters
	// Lateness is by how much packets that it delays entered and came too late: a busy machine does not keep the schedule.
	Lateness wire.Lateness
	// Missed packets, or large segments, found no room in the sender's interface, as the wire was not run for too long. They
	// have not entered the model.
	Missed uint64
}

// State tells how the link is shaped now.
func (l *Link) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	state := l.body.state()
	state.Shapes = l.shapes
	if _, s, ok := l.station(); ok {
		now := s.now
		state.Station = &now
	}
	return state
}

// Driven says whether packets pass through this process: then the link must be closed or abandoned, or it keeps its ends'
// namespaces.
func (l *Link) Driven() bool {
	_, ok := l.body.(*driven)
	return ok
}

// Abandon ends what a link that is Driven has in this process, and leaves the rest to its ends' namespaces, which must be
// about to be freed. That is much faster than Close. Of any other link nothing is in this process.
func (l *Link) Abandon() error {
	d, ok := l.body.(*driven)
	if !ok {
		return nil
	}
	if err := errors.Join(d.history.leave(d.wire), d.model.release(true)); err != nil {
		return fmt.Errorf("link %s: %w", l.Name, err)
	}
	return nil
}

// ErrUnshaped is wrapped by Set's error for a link that was made with the shaper "none".
var ErrUnshaped = errors.New("was made without shaping")

// Set changes the shapes of what A sends and of what B sends to what change makes of those that they have. Both are
// changed, or after an error, which may be that of change, none is. What the shaper that made the link cannot give is an
// *UnsupportedError; of a link that replays a trace nothing can be changed (ErrReplay). What is on its way keeps its delay, and what comes after it does not overtake it; but a change of the
// queueing discipline, which "auto" may make, drops what is on its way. Random choices begin anew from the seed.
func (l *Link) Set(change func(now [2]topology.Shape) (next [2]topology.Shape, err error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next, err := change(l.shapes)
	if err != nil {
		return err
	}
	if err := l.body.become(l.shapes, next); err != nil {
		return err
	}
	l.shapes = next
	return nil
}

// ErrNoAirtime is wrapped by SetStation's error for a link that has no station.
var ErrNoAirtime = errors.New("has no airtime")

// SetStation is Set of a link with airtime, whose station it changes too, all but its radio; packets go on meanwhile. Rate
// control goes on with what it has learnt, unless the MCS was fixed. Where the link has no airtime it is ErrNoAirtime.
func (l *Link) SetStation(change func(now [2]topology.Shape, station topology.Station) ([2]topology.Shape, topology.Station, error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, s, ok := l.station()
	if !ok {
		if _, is := l.body.(unshaped); is {
			return l.body.become(l.shapes, l.shapes) // which says so
		}
		return fmt.Errorf("link %s %w", l.Name, ErrNoAirtime)
	}
	next, to, err := change(l.shapes, s.now)
	if err != nil {
		return err
	}
	if err := d.do(func(at time.Duration) error { return s.become(at, next, to) }); err != nil {
		return err
	}
	l.shapes, s.now = next, to
	return nil
}

// station is that of a link with airtime, and the body that it is of.
func (l *Link) station() (*driven, *station, bool) {
	d, ok := l.body.(*driven)
	if !ok {
		return nil, nil, false
	}
	s, ok := d.model.(*station)
	return d, s, ok
}

// Close removes the link from both nodes. One that is gone already is no error.
func (l *Link) Close() error {
	if err := l.body.close(); err != nil {
		return fmt.Errorf("link %s: %w", l.Name, err)
	}
	return nil
}

// Make makes link between its ends' namespaces, with the planned interface names and MTU, shaped in both directions, and
// up. What the shaper cannot give the link is an *UnsupportedError. On error nothing is left.
func Make(link topology.PlannedLink, a, b *netns.Namespace, shaper Shaper) (*Link, error) {
	if lacks := shaper.Lacks(link); lacks != nil {
		return nil, &UnsupportedError{Links: []LinkNeeds{*lacks}}
	}
	made := &Link{Name: link.Name, shapes: [2]topology.Shape{link.Shape, link.Shape}}
	var err error
	if made.body, err = shaper.connect(link, a, b); err != nil {
		return nil, fmt.Errorf("link %s: %w", link.Name, err)
	}
	if _, ok := made.body.(unshaped); ok {
		made.shapes = [2]topology.Shape{}
		made.Ignored = link.Needs(link.Shape)
	}
	return made, nil
}
