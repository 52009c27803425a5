// Package clock is the time that pqlab waits by: the machine's, or one that a test moves by hand, so that ten minutes
// pass at once.
package clock

import (
	"sync"
	"time"
)

// Clock tells the time and calls back later.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f once after d, unless the timer is stopped before.
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is a call that a Clock still owes.
type Timer interface {
	// Stop prevents the call, and reports whether it did: false when the call was made or stopped before. It does
	// not wait for a call that runs.
	Stop() bool
}

// Real is the machine's clock. Its calls run in goroutines of their own.
type Real struct{}

// Now is time.Now.
func (Real) Now() time.Time { return time.Now() }

// AfterFunc is time.AfterFunc.
func (Real) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }

// Manual stands still until Advance moves it. The zero value starts at the zero time.
type Manual struct {
	advancing sync.Mutex // held by Advance: calls are made by one goroutine at a time

	mu     sync.Mutex
	now    time.Time
	timers []*manualTimer // in the order of their making
}

// NewManual gives a clock that stands at start.
func NewManual(start time.Time) *Manual { return &Manual{now: start} }

// Now is where the clock stands. Inside a call it is the time at which that call was due.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// AfterFunc calls f from the Advance that reaches the time; one that is due already waits for the next Advance.
func (m *Manual) AfterFunc(d time.Duration, f func()) Timer {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &manualTimer{clock: m, at: m.now.Add(max(d, 0)), f: f}
	m.timers = append(m.timers, t)
	return t
}

// Advance moves the clock by d and makes the calls that come due on the way, in the order of their times and, for
// equal times, of their making; calls that these set up are made too if they are due. It returns when the last call
// has returned. A call must not advance its clock.
func (m *Manual) Advance(d time.Duration) {
	m.advancing.Lock()
	defer m.advancing.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	end := m.now.Add(max(d, 0))
	for {
		next := -1
		for i, t := range m.timers {
			if !t.at.After(end) && (next < 0 || t.at.Before(m.timers[next].at)) {
				next = i
			}
		}
		if next < 0 {
			m.now = end
			return
		}
		t := m.timers[next]
		m.remove(next)
		if t.at.After(m.now) {
			m.now = t.at
		}
		m.call(t.f)
	}
}

// call runs f without the lock, so that f may use the clock.
func (m *Manual) call(f func()) {
	m.mu.Unlock()
	defer m.mu.Lock()
	f()
}

func (m *Manual) remove(i int) { m.timers = append(m.timers[:i], m.timers[i+1:]...) }

type manualTimer struct {
	clock *Manual
	at    time.Time
	f     func()
}

func (t *manualTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	for i, other := range t.clock.timers {
		if other == t {
			t.clock.remove(i)
			return true
		}
	}
	return false
}
