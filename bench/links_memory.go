package bench

import (
	"context"
	"errors"
	"runtime"
	"time"

	"pqlab/lab"
	"pqlab/links/medium"
	"pqlab/topology"
)

// Flood is what a link takes of this machine's memory when three times its rate is sent over it.
type Flood struct {
	Frame  int     `json:"frame_bytes"`
	Rate   float64 `json:"bits_per_second"`
	Delay  float64 `json:"delay_ms"`
	Queue  int     `json:"queue_bytes"` // that the link has, of frames
	Held   int     `json:"held_bytes"`  // of frames, by the model alone
	Bound  int     `json:"bound_bytes"` // of Held: rate × delay × 2, the queue, and room for a burst
	Memory int     `json:"memory_bytes"`
	// Most is how many bytes of memory there may be for each of Bound: of a buffer of a power of two and of bookkeeping.
	Most int `json:"most_memory_of_bound"`

	shape topology.Shape
}

// floods are of large frames, and of the smallest that flows have, whose buffers are much larger than they are.
func floods() []Flood {
	const mtu, burst = 1500, 1 << 20
	all := []Flood{
		{Frame: mtu + 14, Most: 2, shape: topology.Shape{Rate: 100 * topology.Mbit, Delay: 100 * time.Millisecond}},
		{Frame: 96 + 14, Most: 5, shape: topology.Shape{Rate: 10 * topology.Mbit, Delay: 500 * time.Millisecond}}, // at a rate that a sender makes of them
	}
	for i := range all {
		f := &all[i]
		f.Rate, f.Delay, f.Queue = float64(f.shape.Rate), ms(f.shape.Delay), medium.Room(f.shape, mtu)
		f.Bound = f.product() + f.Queue + burst
	}
	return all
}

// product is what a link is meant to be bounded by: rate × delay × 2, in bytes.
func (f *Flood) product() int { return int(2 * f.Rate / 8 * f.Delay / 1e3) }

// hold measures how much the model of the link holds.
func (f *Flood) hold() {
	m := medium.NewLink([2]topology.Shape{f.shape, f.shape}, 1500, [2]uint64{1, 2})
	gap := time.Duration(float64(f.Frame) * 8 / (3 * f.Rate) * float64(time.Second))
	held := 0
	for now := time.Duration(0); now < 2*time.Second; now += gap {
		m.Enter(now, 0, medium.Packet{Size: f.Frame, Frames: 1})
		held += f.Frame
		m.Leave(now, func(_ int, p medium.Packet) { held -= p.Size })
		f.Held = max(f.Held, held)
	}
}

// remember measures by how many bytes this process's live heap grew at most, which has the wires of a lab, when one of them
// was flooded for a time.
func (f *Flood) remember(ctx context.Context, d time.Duration) (err error) {
	f.Memory, err = memory(ctx, f.shape, f.Frame, d)
	return err
}

func memory(ctx context.Context, shape topology.Shape, frame int, d time.Duration) (_ int, err error) {
	t, err := topology.New("flood").Host("a").Host("b").Ethernet("a", "b").UDP("a", "b", 3*shape.Rate, topology.FrameSize(frame-14)).Topology()
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
	least := live() // what labs before this one left may still go
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
			now := live()
			least = min(least, now)
			most = max(most, now-least)
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
