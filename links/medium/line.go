package medium

import "time"

// line holds packets until a time of each, earliest first; those of one time in the order in which they came. The zero
// value is empty.
type line struct {
	heap   []waiting
	pushed uint64
	bytes  int // of its packets
}

type waiting struct {
	at time.Duration
	n  uint64
	p  *Packet
}

func (w waiting) before(o waiting) bool { return w.at < o.at || w.at == o.at && w.n < o.n }

func (l *line) first() (at time.Duration, ok bool) {
	if len(l.heap) == 0 {
		return 0, false
	}
	return l.heap[0].at, true
}

func (l *line) push(at time.Duration, p *Packet) {
	l.heap = append(l.heap, waiting{at, l.pushed, p})
	l.pushed++
	l.bytes += p.Size
	for i := len(l.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !l.heap[i].before(l.heap[up]) {
			return
		}
		l.heap[i], l.heap[up] = l.heap[up], l.heap[i]
		i = up
	}
}

// pop takes the first.
func (l *line) pop() *Packet {
	p := l.heap[0].p
	l.bytes -= p.Size
	last := len(l.heap) - 1
	l.heap[0], l.heap[last] = l.heap[last], waiting{}
	l.heap = l.heap[:last]
	for i := 0; ; {
		least := i
		for _, down := range [2]int{2*i + 1, 2*i + 2} {
			if down < last && l.heap[down].before(l.heap[least]) {
				least = down
			}
		}
		if least == i {
			return p
		}
		l.heap[i], l.heap[least] = l.heap[least], l.heap[i]
		i = least
	}
}

// fifo is a queue. The zero value is empty.
type fifo struct {
	ring        []*Packet
	start, size int
}

func (f *fifo) len() int { return f.size }

func (f *fifo) push(p *Packet) {
	if f.size == len(f.ring) {
		ring := make([]*Packet, max(16, 2*f.size))
		n := copy(ring, f.ring[f.start:])
		copy(ring[n:], f.ring[:f.start])
		f.ring, f.start = ring, 0
	}
	f.ring[(f.start+f.size)%len(f.ring)] = p
	f.size++
}

// pop takes the first; there is one.
func (f *fifo) pop() *Packet {
	p := f.ring[f.start]
	f.ring[f.start] = nil
	f.start = (f.start + 1) % len(f.ring)
	f.size--
	return p
}
