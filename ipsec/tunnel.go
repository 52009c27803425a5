package ipsec

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"pqlab/internal/clock"
)

// DefaultGrace is how long an inbound SA outlives its replacement. It must exceed the time that packets sent before
// the switch may still be on their way.
const DefaultGrace = 3 * time.Second

// Config of one end of a tunnel.
type Config struct {
	Policy Policy
	Limits Limits // soft ones. Zero Time or Blocks: the default; zero Bytes or Packets: no limit
	Keyer  Keyer
	Grace  time.Duration // 0 means DefaultGrace
	// OnTraffic makes a packet that finds no SA begin an exchange, which is tried again until one completes.
	OnTraffic bool
	Seed      uint64 // of the jitter between attempts; each end of a tunnel draws its own sequence from it
}

// Tunnel keeps one end of a tunnel keyed. It begins an exchange when an SA reaches a limit or on demand, answers
// those that the peer begins, and replaces the SAs so that no packet is lost:
//
//   - an outbound SA is used only after its inbound SA stands at the other end;
//   - an inbound SA that was replaced goes after a grace, which begins when it is certain that the peer switched;
//   - where that is not certain, because an exchange broke off at its end, each end keeps the inbound SAs that the
//     other may be using until the next exchange completes or the hard limit of time passes.
//
// Whose turn: the sender of an SA begins when it reaches a limit of volume, and who began the last exchange when the
// time is over. The other end begins in its place an eighth later.
//
// There is one exchange at a time. If both ends began one at once, the one with the lower SPI in its proposal goes
// on; the other is abandoned before any of its keys is installed.
//
// A failed exchange is tried again, first after half a second, then after twice as long each time up to 15 s, less
// up to half of it by chance, until one completes. At the hard limit traffic is refused, but the attempts go on, so
// that a tunnel comes back by itself when the network does.
type Tunnel struct {
	name      string
	set       *Tunnels
	limits    Limits
	keyer     Keyer
	grace     time.Duration
	onTraffic bool
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	running   sync.WaitGroup // exchanges that this end began
	gone      chan struct{}  // closed at the end of Close
	goneErr   error

	mu       sync.Mutex // held in calls to the dataplane
	closed   bool
	in, out  uint32            // SPIs in use; 0 is none
	up       bool              // in and out are of exchanges that completed at both ends
	held     []uint32          // inbound SPIs that the peer may be using, besides in
	retiring map[uint32]*timer // inbound SPIs in their grace
	exchange *exchange         // under way; nil is none
	want     Trigger           // why new SAs are needed; empty: they are not
	wanted   Usage             // of the SAs when want was set
	waiters  []chan error      // each takes one error
	attempts int               // that failed since the last success
	jitter   *rand.Rand
	due      *timer // the soft limit of time
	end      *timer // the hard limit of time, at endAt
	endAt    time.Time
	retry    *timer
}

func newTunnel(set *Tunnels, c Config) *Tunnel {
	h := fnv.New64a()
	fmt.Fprint(h, c.Policy.Tunnel, c.Policy.Src) // the two ends must not draw the same sequence
	ctx, cancel := context.WithCancel(context.Background())
	t := &Tunnel{
		name: c.Policy.Tunnel, set: set, limits: c.Limits.withDefaults(), keyer: c.Keyer, grace: c.Grace, onTraffic: c.OnTraffic,
		ctx: ctx, cancel: cancel, gone: make(chan struct{}),
		retiring: make(map[uint32]*timer), jitter: rand.New(rand.NewPCG(c.Seed, h.Sum64())),
	}
	if t.grace <= 0 {
		t.grace = DefaultGrace
	}
	return t
}

// Name is the tunnel's name in its policy.
func (t *Tunnel) Name() string { return t.name }

// Current gives the SPIs in use; 0 is none.
func (t *Tunnel) Current() SPIPair {
	t.mu.Lock()
	defer t.mu.Unlock()
	return SPIPair{t.in, t.out}
}

// Establish keys the tunnel by an exchange that this end begins, unless it is keyed already. On an error nothing is
// installed and no further attempt is made; only where ctx ends while the last acknowledgement is under way that may
// still establish it. While the peer is busy it waits, until ctx ends.
func (t *Tunnel) Establish(ctx context.Context) error {
	t.mu.Lock()
	if t.up {
		t.mu.Unlock()
		return nil
	}
	return t.demand(ctx)
}

// Rekey replaces the SAs, and returns when new ones are in use at both ends. It joins an exchange that is under way.
// On an error of the exchange the old SAs stay in use, and the tunnel goes on trying. When ctx ends before this end
// has taken new SAs into use the demand is withdrawn.
func (t *Tunnel) Rekey(ctx context.Context) error {
	t.mu.Lock()
	return t.demand(ctx)
}

// demand is entered with the lock held and releases it.
func (t *Tunnel) demand(ctx context.Context) error {
	if t.closed {
		t.mu.Unlock()
		return fmt.Errorf("tunnel %s: %w", t.name, ErrClosed)
	}
	w := make(chan error, 1)
	t.waiters = append(t.waiters, w)
	t.retry.stop() // a demand does not wait for the next attempt
	t.retry = nil
	t.trigger(OnDemand)
	t.mu.Unlock()

	select {
	case err := <-w:
		if err != nil {
			return fmt.Errorf("tunnel %s: %w", t.name, err)
		}
		return nil
	case <-ctx.Done():
		t.withdraw(w)
		return fmt.Errorf("tunnel %s: no new SAs: %w", t.name, context.Cause(ctx))
	}
}

// withdraw ends a demand, and its exchange if nothing else needs it and none of its keys is in use.
func (t *Tunnel) withdraw(w chan error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiters = slices.DeleteFunc(t.waiters, func(other chan error) bool { return other == w })
	x := t.exchange
	mine := x != nil && x.initiator
	if len(t.waiters) > 0 || t.want != OnDemand || len(t.held) > 0 || mine && x.installed {
		return
	}
	t.want = ""
	t.retry.stop()
	t.retry = nil
	if mine {
		t.abandon(x)
	}
}

// Close removes the tunnel with its SAs and its policy from the dataplane and returns when nothing of it runs any
// more. Demands that wait end with ErrClosed. Further calls wait for the first and return its error.
func (t *Tunnel) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		<-t.gone
		return t.goneErr
	}
	t.closed = true
	t.cancel()
	t.stopTimers()
	t.wake(ErrClosed)
	t.mu.Unlock()
	t.running.Wait()

	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopTimers() // of an exchange that ended well meanwhile
	e := Event{Kind: Removed, Old: SPIPair{t.in, t.out}, Replaced: t.usage()}
	if err := t.set.dataplane.RemoveTunnel(t.name); err != nil {
		t.goneErr = fmt.Errorf("tunnel %s: %w", t.name, err)
	}
	t.set.spis.Release(t.in)
	for _, spi := range t.held {
		t.set.spis.Release(spi)
	}
	for spi := range t.retiring {
		t.set.spis.Release(spi)
	}
	t.in, t.out, t.up, t.held = 0, 0, false, nil
	clear(t.retiring)
	e.Err = t.goneErr
	t.emit(e)
	t.set.remove(t)
	close(t.gone)
	return t.goneErr
}

// usage reads the counters of the SAs in use. An SA that the kernel removed already counts nothing.
func (t *Tunnel) usage() (u Usage) {
	if t.in != 0 {
		u.In, _ = t.set.dataplane.Counters(t.name, t.in)
	}
	if t.out != 0 {
		u.Out, _ = t.set.dataplane.Counters(t.name, t.out)
	}
	return u
}

func (t *Tunnel) stopTimers() {
	for _, tm := range []*timer{t.due, t.end, t.retry} {
		tm.stop()
	}
	for _, tm := range t.retiring {
		tm.stop()
	}
}

func (t *Tunnel) wake(err error) {
	for _, w := range t.waiters {
		w <- err
	}
	t.waiters = nil
}

func (t *Tunnel) emit(e Event) {
	e.Tunnel, e.At = t.name, t.set.clock.Now()
	t.set.emit(e)
}

// timer calls back with the tunnel's lock held, and never after stop. A nil timer is stopped.
type timer struct {
	stopped bool
	timer   clock.Timer
}

func (t *Tunnel) after(d time.Duration, f func()) *timer {
	tm := new(timer)
	tm.timer = t.set.clock.AfterFunc(d, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !tm.stopped {
			f()
		}
	})
	return tm
}

// stop needs the tunnel's lock.
func (tm *timer) stop() {
	if tm != nil {
		tm.stopped = true
		tm.timer.Stop()
	}
}
