package bench

import (
	"context"
	"errors"
	"fmt"
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
	Bound  int     `json:"bound_bytes"` // of Held: rate × delay, the queue, and a frame
	Memory int     `json:"memory_bytes"`
	// Most is how much memory is allowed, with bookkeeping and what the process has for the flow: Of.
	Most int    `json:"most_memory_bytes"`
	Of   string `json:"most_memory"`

	shape topology.Shape
}

// floods are of large frames over a long link, so that what a process has anyway counts little, and of the smallest that flows
// have, beside which the bookkeeping does.
func floods() []Flood {
	const mtu, most = 1500, 4
	large := Flood{Frame: mtu + 14, shape: topology.Shape{Rate: 200 * topology.Mbit, Delay: 500 * time.Millisecond}}
	small := Flood{Frame: 96 + 14, shape: topology.Shape{Rate: 10 * topology.Mbit, Delay: 500 * time.Millisecond}} // at a rate that a sender makes of them
	for _, f := range []*Flood{&large, &small} {
		f.Rate, f.Delay, f.Queue = float64(f.shape.Rate), ms(f.shape.Delay), medium.Room(f.shape, mtu)
		f.Bound = int(f.Rate/8*f.shape.Delay.Seconds()) + f.Queue + mtu + 14
	}
	large.Most, large.Of = int(2*large.Rate/8*large.shape.Delay.Seconds()), "rate × delay × 2"
	small.Most, small.Of = most*small.Bound, fmt.Sprintf("%d times what the model may hold", most)
	return []Flood{large, small}
}

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
