package esp

import (
	"math/rand/v2"
	"testing"
)

// naive is a window as RFC 4303 describes it, without any cleverness.
type naive struct {
	size, top uint64
	seen      map[uint64]bool
	start     uint64
}

func (n *naive) accept(seq uint64) bool {
	if seq <= n.start || seq <= n.top && n.top-seq >= n.size || n.seen[seq] {
		return false
	}
	n.seen[seq] = true
	n.top = max(n.top, seq)
	return true
}

func TestWindowAgainstNaive(t *testing.T) {
	for _, size := range []uint32{1, 2, 31, 32, 33, 63, 64, 65, 100, 128, 1000, 4096} {
		for _, start := range []uint64{0, 1, 63, 64, 1000, 1<<32 - 300, 1<<32 - 1, 1 << 32, 7<<32 + 17} {
			r := rand.New(rand.NewPCG(uint64(size), start))
			w := NewWindow(size, start)
			n := &naive{size: uint64(size), top: start, start: start, seen: map[uint64]bool{}}
			for i := range 4000 {
				var seq uint64
				switch r.IntN(10) {
				case 0: // a jump, at times beyond the ring
					seq = n.top + 1 + r.Uint64N(3*uint64(size)+200)
				case 1, 2, 3:
					seq = n.top + 1
				default: // within and around the window
					seq = n.top + 3 - min(n.top, r.Uint64N(uint64(size)+70))
				}
				if seq == 0 {
					continue
				}
				got := w.Check(seq)
				if got {
					w.Update(seq)
				}
				if want := n.accept(seq); got != want || w.Top() != n.top {
					t.Fatalf("window %d from %d, step %d, number %d: accepted %v, want %v; top %d, want %d", size, start, i, seq, got, want, w.Top(), n.top)
				}
			}
		}
	}
}

// TestExtend checks what RFC 4303 appendix A2.2 promises: every number from the window's bottom up to less than 2^32 above
// it is inferred right.
func TestExtend(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300000 {
		size := uint32(1 + r.IntN(5000))
		top := r.Uint64() >> r.IntN(64)
		switch r.IntN(3) {
		case 0: // near a wrap
			top = top>>32<<32 + uint64(r.IntN(6000))
		case 1:
			top = top | 0xffffffff - uint64(r.IntN(6000))
		}
		bottom := top - min(top, uint64(size)-1)
		seq := bottom + r.Uint64N(1<<32-uint64(size))
		if r.IntN(2) == 0 {
			seq = bottom + r.Uint64N(2*uint64(size))
		}
		if seq < bottom { // past 2^64
			continue
		}
		got, ok := NewWindow(size, top).Extend(uint32(seq))
		if !ok || got != seq {
			t.Fatalf("window %d, top %#x: %#x became %#x, %v", size, top, seq, got, ok)
		}
	}
}

func TestExtendBelowTheFirst(t *testing.T) {
	if seq, ok := NewWindow(64, 10).Extend(0xfffffff0); ok {
		t.Errorf("a number before the first became %#x", seq)
	}
	if NewWindow(64, 10).Check(0) {
		t.Error("number 0 was accepted")
	}
}

func BenchmarkWindow(b *testing.B) {
	w := NewWindow(4096, 0)
	var seq uint64
	for b.Loop() {
		seq++
		if s, ok := w.Extend(uint32(seq)); ok && w.Check(s) {
			w.Update(s)
		}
	}
}
