package medium

import (
	"math/rand/v2"
	"testing"
	"time"
)

// The line gives the earliest, and of one time the first that came.
func TestLine(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var l line
	var model []*Packet // in order
	for n := range 20000 {
		if r.IntN(5) < 3 {
			p := &Packet{Number: uint64(n), Due: time.Duration(r.IntN(50))}
			l.push(p.Due, p)
			i := len(model)
			for i > 0 && model[i-1].Due > p.Due {
				i--
			}
			model = append(model[:i], append([]*Packet{p}, model[i:]...)...)
			continue
		}
		at, ok := l.first()
		if ok != (len(model) > 0) {
			t.Fatal(ok, len(model))
		}
		if !ok {
			continue
		}
		if got := l.pop(); got != model[0] || at != got.Due {
			t.Fatalf("got %d of %v, want %d of %v", got.Number, at, model[0].Number, model[0].Due)
		}
		model = model[1:]
	}
}

func TestFIFO(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var f fifo
	in, out := uint64(0), uint64(0)
	for range 100000 {
		if r.IntN(9) < 5 {
			f.push(&Packet{Number: in})
			in++
		} else if f.len() > 0 {
			if p := f.pop(); p.Number != out {
				t.Fatalf("packet %d, want %d", p.Number, out)
			}
			out++
		}
		if uint64(f.len()) != in-out {
			t.Fatal(f.len(), in, out)
		}
	}
}
