package gateway

import (
	"sync"

	"pqlab/ipsec"
)

// expiries carries what the packet loops have to tell, without bound and without making them wait: limits are reached a
// few times in an SA's life, so a lock and a growing slice do.
type expiries struct {
	out  chan ipsec.Expiry
	wake chan struct{} // capacity 1
	stop chan struct{}

	mu      sync.Mutex
	pending []ipsec.Expiry
}

func newExpiries() *expiries {
	return &expiries{out: make(chan ipsec.Expiry, 64), wake: make(chan struct{}, 1), stop: make(chan struct{})}
}

// add never waits for the receiver.
func (e *expiries) add(x ipsec.Expiry) {
	e.mu.Lock()
	e.pending = append(e.pending, x)
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// run delivers until stop is closed. What is left then is delivered as far as the channel holds it; then that is closed.
func (e *expiries) run() {
	defer close(e.out)
	for stopped := false; !stopped; {
		select {
		case <-e.wake:
		case <-e.stop:
			stopped = true // after a last look
		}
		e.mu.Lock()
		batch := e.pending
		e.pending = nil
		e.mu.Unlock()
		for _, x := range batch {
			select {
			case e.out <- x: // first, because select chooses at random between two that can go on
				continue
			default:
			}
			select {
			case e.out <- x:
			case <-e.stop:
				return
			}
		}
	}
}
