// Package expiry carries what a dataplane has to tell of its SAs' limits.
package expiry

import (
	"sync"

	"pqlab/ipsec"
)

// Queue carries expiries without bound and without making those wait who tell: limits are reached a few times in an SA's
// life, so a lock and a growing slice do.
type Queue struct {
	Out <-chan ipsec.Expiry // closed by Close

	out  chan ipsec.Expiry
	wake chan struct{} // capacity 1
	stop chan struct{}
	done chan struct{}

	mu      sync.Mutex
	pending []ipsec.Expiry
}

// NewQueue starts to deliver; Close ends that.
func NewQueue() *Queue {
	q := &Queue{
		out: make(chan ipsec.Expiry, 64), wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	q.Out = q.out
	go q.run()
	return q
}

// Add never waits for the receiver.
func (q *Queue) Add(x ipsec.Expiry) {
	q.mu.Lock()
	q.pending = append(q.pending, x)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Close delivers what is left as far as the channel holds it, and closes that. Nobody may call Add after it, nor it twice.
func (q *Queue) Close() {
	close(q.stop)
	<-q.done
}

func (q *Queue) run() {
	defer close(q.done)
	defer close(q.out)
	for stopped := false; !stopped; {
		select {
		case <-q.wake:
		case <-q.stop:
			stopped = true // after a last look
		}
		q.mu.Lock()
		batch := q.pending
		q.pending = nil
		q.mu.Unlock()
		for _, x := range batch {
			select {
			case q.out <- x: // first, because select chooses at random between two that can go on
				continue
			default:
			}
			select {
			case q.out <- x:
			case <-q.stop:
				return
			}
		}
	}
}
