package esp

// Window is an anti-replay window over 64-bit sequence numbers of which the wire carries the low half (RFC 4303
// appendix A), kept as a ring of words (RFC 6479). It is used by one goroutine.
type Window struct {
	size uint64 // packets
	top  uint64 // highest sequence number accepted
	ring []uint64
}

// NewWindow makes a window of size packets, at least 1, in which every number up to top has been seen.
func NewWindow(size uint32, top uint64) *Window {
	// One word more than the window needs, so that the word that the top enters holds nothing of the window.
	words := 2
	for words < int((uint64(size)+63)/64)+1 {
		words *= 2
	}
	w := &Window{size: uint64(max(size, 1)), top: top, ring: make([]uint64, words)}
	for i := range w.ring {
		w.ring[i] = ^uint64(0)
	}
	*w.word(top) = ^uint64(0) >> (63 - top%64)
	return w
}

// Top is the highest sequence number accepted.
func (w *Window) Top() uint64 { return w.top }

// Extend infers the 64-bit number of which low came on the wire (RFC 4303 appendix A2.2). It is false where the number
// would lie before the first packet.
func (w *Window) Extend(low uint32) (uint64, bool) {
	topLow, high := uint32(w.top), w.top>>32
	bottom := topLow - uint32(w.size) + 1 // modulo 2^32
	if uint64(topLow) >= w.size-1 {       // the window lies within one subspace
		if low < bottom {
			high++
		}
	} else if low >= bottom { // the window spans two, and low is in the lower one
		if high == 0 {
			return 0, false
		}
		high--
	}
	return high<<32 | uint64(low), high <= 1<<32-1
}

// Check says whether seq is new and not left of the window.
func (w *Window) Check(seq uint64) bool {
	switch {
	case seq == 0: // never sent (RFC 4303 section 3.3.3)
		return false
	case seq > w.top:
		return true
	case w.top-seq >= w.size:
		return false
	}
	return *w.word(seq)&(1<<(seq%64)) == 0
}

// Update marks seq, which Check has let pass, as seen.
func (w *Window) Update(seq uint64) {
	if seq > w.top {
		steps := min(seq/64-w.top/64, uint64(len(w.ring)))
		for i := range steps {
			*w.word(seq - 64*i) = 0
		}
		w.top = seq
	}
	*w.word(seq) |= 1 << (seq % 64)
}

func (w *Window) word(seq uint64) *uint64 { return &w.ring[seq/64&uint64(len(w.ring)-1)] }
