package traffic

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// model is what sequence claims, by brute force.
type model struct {
	seen                            map[uint64]bool
	highest                         uint64
	any                             bool
	received, duplicated, reordered uint64
}

func (m *model) arrive(seq uint64) {
	switch {
	case m.seen[seq]:
		m.duplicated++
		return
	case m.any && seq < m.highest:
		m.reordered++
	}
	m.received++
	m.seen[seq] = true
	if !m.any || seq > m.highest {
		m.highest, m.any = seq, true
	}
}

func checkAgainstModel(t *testing.T, arrivals []uint64, sent uint64) {
	t.Helper()
	m := model{seen: map[uint64]bool{}}
	var s sequence
	for _, seq := range arrivals {
		m.arrive(seq)
		s.arrive(seq, sendTime(seq))
	}
	s.end(sent, sendTime(sent))
	if s.received != m.received || s.duplicated != m.duplicated || s.reordered != m.reordered || s.unclassified != 0 {
		t.Fatalf("arrivals %v: received, duplicated, reordered %d %d %d (%d unclassified), want %d %d %d",
			arrivals, s.received, s.duplicated, s.reordered, s.unclassified, m.received, m.duplicated, m.reordered)
	}
	missing := map[uint64]bool{}
	for _, l := range s.losses(7) {
		if l.Count != l.Last-l.First+1 || l.Stream != 7 {
			t.Fatalf("loss %+v", l)
		}
		for q := l.First; q <= l.Last; q++ {
			missing[q] = true
			if sendTime(q) <= l.After && q > 0 || sendTime(q) >= l.Before {
				t.Fatalf("packet %d was sent at %d, outside its bracket %+v", q, sendTime(q), l)
			}
		}
		// As tight as can be: the neighbours arrived.
		if l.First > 0 && (!m.seen[l.First-1] || l.After != sendTime(l.First-1)) {
			t.Fatalf("loss %+v does not begin at its neighbour", l)
		}
		if l.Last+1 < sent && (!m.seen[l.Last+1] || l.Before != sendTime(l.Last+1)) {
			t.Fatalf("loss %+v does not end at its neighbour", l)
		}
	}
	for q := range sent {
		if missing[q] == m.seen[q] {
			t.Fatalf("packet %d: missing %v, arrived %v", q, missing[q], m.seen[q])
		}
	}
}

func sendTime(seq uint64) Instant { return Instant(1000 + 10*seq) }

func TestSequence(t *testing.T) {
	t.Parallel()
	for _, c := range [][]uint64{
		{},
		{0, 1, 2, 3},
		{3, 2, 1, 0},
		{1},
		{5, 5, 5},
		{0, 2, 1, 1, 4, 9, 7, 6, 5, 8, 3, 3},
		{9, 4, 3, 5, 4},
	} {
		checkAgainstModel(t, c, 10)
	}
}

func TestSequenceRandom(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		sent := 1 + r.Uint64N(200)
		loss, dup, reach := r.Float64()*0.5, r.Float64()*0.3, 1+r.IntN(20)
		var a []uint64
		for q := range sent {
			if r.Float64() < loss {
				continue
			}
			a = append(a, q)
			for r.Float64() < dup {
				a = append(a, q)
			}
		}
		for i := range a {
			j := min(len(a)-1, i+r.IntN(reach))
			a[i], a[j] = a[j], a[i]
		}
		checkAgainstModel(t, a, sent)
	}
}

func FuzzSequence(f *testing.F) {
	f.Add([]byte{0, 1, 2}, byte(3))
	f.Add([]byte{9, 3, 3, 1, 255, 0}, byte(255))
	f.Fuzz(func(t *testing.T, arrivals []byte, sent byte) {
		var a []uint64
		for _, b := range arrivals {
			if b < sent {
				a = append(a, uint64(b))
			}
		}
		checkAgainstModel(t, a, uint64(sent))
	})
}

// TestSequenceBounded loses every second packet of a stream that is too long to remember.
func TestSequenceBounded(t *testing.T) {
	t.Parallel()
	var s sequence
	const arrived = 2*maxGaps + 10
	for i := range uint64(arrived) {
		s.arrive(2*i, sendTime(2*i))
	}
	if len(s.gaps) > maxGaps || len(s.folded) > maxLosses {
		t.Fatalf("%d gaps and %d folded ones are remembered", len(s.gaps), len(s.folded))
	}
	var lost uint64
	for _, l := range s.losses(0) {
		lost += l.Count
	}
	if lost != arrived-1 {
		t.Fatalf("lost %d, want %d", lost, arrived-1)
	}
	if s.arrive(1, sendTime(1)); s.unclassified != 1 || s.duplicated != 0 || s.received != arrived {
		t.Fatalf("a packet from before what is remembered: %d unclassified, %d duplicated", s.unclassified, s.duplicated)
	}
}

func TestCondense(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		var in []Loss
		for stream := range 1 + r.IntN(5) {
			q := uint64(0)
			for range r.IntN(100) {
				q += 2 + r.Uint64N(5)
				in = append(in, Loss{Stream: stream, First: q, Last: q, Count: 1, After: sendTime(q - 1), Before: sendTime(q + 1)})
			}
		}
		whole := Result{Losses: slices.Clone(in)}
		small := Result{Losses: condense(slices.Clone(in), 10)}
		if len(small.Losses) > 10 {
			t.Fatalf("%d losses are left of %d", len(small.Losses), len(in))
		}
		if a, b := lostBetween(whole, 0, 1<<62), lostBetween(small, 0, 1<<62); a != b {
			t.Fatalf("%d lost before, %d after", a, b)
		}
		t0 := Instant(r.Uint64N(4000))
		t1 := t0 + Instant(r.Uint64N(500))
		if a, b := lostBetween(whole, t0, t1), lostBetween(small, t0, t1); b < a {
			t.Fatalf("%d lost within an interval before, %d after", a, b)
		}
	}
}

// lostBetween counts the packets lost that may have been sent from t0 to t1.
func lostBetween(r Result, t0, t1 Instant) uint64 {
	var n uint64
	for _, l := range r.Losses {
		if l.After <= t1 && l.Before >= t0 {
			n += l.Count
		}
	}
	return n
}

func FuzzHeader(f *testing.F) {
	b := make([]byte, headerSize)
	header{1, 2, 3, 4}.put(b)
	f.Add(b)
	f.Add(b[:31])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := parseHeader(b)
		if !ok {
			return
		}
		out := make([]byte, headerSize)
		h.put(out)
		if !slices.Equal(out, b[:headerSize]) {
			t.Fatalf("%x became %x", b[:headerSize], out)
		}
	})
}

func FuzzControl(f *testing.F) {
	f.Add(make([]byte, 64))
	f.Add([]byte{20, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 104, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		groSize(b) // must not read beyond it
	})
}
