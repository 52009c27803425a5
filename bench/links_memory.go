package bench

import (
	"context"
	"errors"
	"runtime"
	"time"

	"pqlab/lab"
	"pqlab/topology"
)

// flooded is the link whose memory is measured, beside which three times its rate is sent.
func flooded() topology.Shape {
	return topology.Shape{Rate: 100 * topology.Mbit, Delay: 100 * time.Millisecond}
}

// memory is by how many bytes this process's live heap grew at most, which has the wires of a lab, when one of them was
// flooded for a time.
func memory(ctx context.Context, d time.Duration) (_ int, err error) {
	shape := flooded()
	t, err := topology.New("flood").Host("a").Host("b").Ethernet("a", "b").UDP("a", "b", 3*shape.Rate).Topology()
	if err != nil {
		return 0, err
	}
	t.Links[0].Shape = shape
	p, err := t.Plan()
	if err != nil {
		return 0, err
	}
	l, err := lab.Up(ctx, p, lab.Options{Shaper: "wire"})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Down(context.WithoutCancel(ctx))) }()
	before := live()
	done := make(chan error, 1)
	go func() {
		_, err := l.Send(ctx, p.Traffic[0], d)
		done <- err
	}()
	most := 0
	for {
		select {
		case err := <-done:
			return most, err
		case <-time.After(50 * time.Millisecond):
			most = max(most, live()-before)
		}
	}
}

// live is what is in use of the heap, without what nobody refers to: what is let go while a collection runs is left to the next.
func live() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
