package guest

import "sync"

// queue holds input that the command has not read yet. How much, is bounded by the credit that the sender has.
type queue struct {
	mu    sync.Mutex
	some  sync.Cond
	b     []byte
	ended bool
}

func newQueue() *queue {
	q := &queue{}
	q.some.L = &q.mu
	return q
}

// put adds input; none at all is its end.
func (q *queue) put(b []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(b) == 0 {
		q.ended = true
	} else {
		q.b = append(q.b, b...)
	}
	q.some.Signal()
}

// take waits for input and returns all there is, and whether there may be more.
func (q *queue) take() (b []byte, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.b) == 0 && !q.ended {
		q.some.Wait()
	}
	b, q.b = q.b, nil
	return b, len(b) > 0 || !q.ended
}
