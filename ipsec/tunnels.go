package ipsec

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"pqlab/internal/clock"
)

// Tunnels are the tunnels of one node over one dataplane. They share its expiries, a set of SPIs and one stream of
// events.
type Tunnels struct {
	dataplane Dataplane
	clock     clock.Clock
	spis      *SPIs
	events    chan Event
	lost      atomic.Uint64
	stop      chan struct{}
	running   sync.WaitGroup

	adding sync.Mutex // held by Add, and by Close until closed is set
	closed bool

	mu     sync.Mutex // of byName; never held in a call to the dataplane
	byName map[string]*Tunnel
}

// NewTunnels watches the expiries of a dataplane, which stays the caller's to close. A nil clock is the machine's, a
// nil spis a set of their own. Close ends it.
func NewTunnels(dataplane Dataplane, c clock.Clock, spis *SPIs) *Tunnels {
	if c == nil {
		c = clock.Real{}
	}
	if spis == nil {
		spis = new(SPIs)
	}
	ts := &Tunnels{
		dataplane: dataplane, clock: c, spis: spis,
		events: make(chan Event, eventBuffer), stop: make(chan struct{}), byName: make(map[string]*Tunnel),
	}
	ts.running.Go(ts.watch)
	return ts
}

// Add makes a tunnel and installs its policy: from here on its traffic is refused until it is keyed, by Establish or
// by the peer.
func (ts *Tunnels) Add(c Config) (*Tunnel, error) {
	name := c.Policy.Tunnel
	if c.Keyer == nil {
		return nil, fmt.Errorf("tunnel %s: no Keyer", name)
	}
	ts.adding.Lock()
	defer ts.adding.Unlock()
	if ts.closed {
		return nil, fmt.Errorf("tunnel %s: %w", name, ErrClosed)
	}
	if ts.Get(name) != nil {
		return nil, fmt.Errorf("tunnel %s: there is one of this name", name)
	}
	if err := ts.dataplane.AddTunnel(c.Policy); err != nil {
		return nil, fmt.Errorf("tunnel %s: %w", name, err)
	}
	t := newTunnel(ts, c)
	ts.mu.Lock()
	ts.byName[name] = t
	ts.mu.Unlock()
	return t, nil
}

// Get gives the tunnel of a name, or nil.
func (ts *Tunnels) Get(name string) *Tunnel {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.byName[name]
}

// Events gives what happens to the tunnels, for one reader. It is closed by Close. Tunnels never wait for the reader:
// one that falls thousands of events behind loses the newest, and LostEvents counts them.
func (ts *Tunnels) Events() <-chan Event { return ts.events }

// LostEvents is the number of events that found no room.
func (ts *Tunnels) LostEvents() uint64 { return ts.lost.Load() }

// Close closes all tunnels and returns when nothing of them runs any more. The dataplane stays open. Calls after the
// first do nothing.
func (ts *Tunnels) Close() error {
	ts.adding.Lock()
	closed := ts.closed
	ts.closed = true
	ts.adding.Unlock()
	if closed {
		return nil
	}
	ts.mu.Lock()
	tunnels := slices.Collect(maps.Values(ts.byName))
	ts.mu.Unlock()
	var errs []error
	for _, t := range tunnels {
		errs = append(errs, t.Close())
	}
	close(ts.stop)
	ts.running.Wait()
	close(ts.events)
	return errors.Join(errs...)
}

// watch hands expiries to their tunnels. It never waits for a tunnel: that may be inside a call to the dataplane,
// which may be waiting for room in the channel that is read here. Expiries are few, so each gets a goroutine.
func (ts *Tunnels) watch() {
	for {
		select {
		case <-ts.stop:
			return
		case e, ok := <-ts.dataplane.Expiries():
			if !ok {
				return
			}
			if t := ts.Get(e.Tunnel); t != nil {
				ts.running.Go(func() { t.expired(e) })
			}
		}
	}
}

func (ts *Tunnels) emit(e Event) {
	select {
	case ts.events <- e:
	default:
		ts.lost.Add(1)
	}
}

func (ts *Tunnels) remove(t *Tunnel) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.byName[t.name] == t {
		delete(ts.byName, t.name)
	}
}
