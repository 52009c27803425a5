package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/lab"
	"pqlab/topology"
	"pqlab/traffic"
)

// WireGoals is what a wire reaches of what it is meant to. Medians are of runs.
type WireGoals struct {
	Unshaped []float64 `json:"unshaped_tcp_bits_per_second"`
	// TCP and UDP over a link of 1 Gbit/s, as share of what its frames leave them.
	TCP []float64 `json:"gigabit_tcp_share"`
	UDP []float64 `json:"gigabit_udp_share"` // empty where this machine did not send as much
	// Congestion is what decided how fast TCP sent here: "cubic", "bbr", …
	Congestion string `json:"tcp_congestion"`
	Air        Air    `json:"wifi"`
	// P50 and P99 are errors of a delay of 5 ms, in µs.
	P50 []float64 `json:"delay_error_p50_us"`
	P99 []float64 `json:"delay_error_p99_us"`
	// Loss of 1 %, with its interval of 99 %.
	Loss LossSeen `json:"loss"`
	// IdleCPU is what IdleLinks idle wires take of one processor.
	IdleLinks int       `json:"idle_links"`
	IdleCPU   []float64 `json:"idle_cpu_share"`
	Floods    []Flood   `json:"floods"`
}

// LossSeen is a share of packets with its confidence interval.
type LossSeen struct {
	Packets int     `json:"packets"`
	Wanted  float64 `json:"wanted"`
	Seen    float64 `json:"seen"`
	Low     float64 `json:"low"`
	High    float64 `json:"high"`
	Missed  uint64  `json:"missed"` // that the wire did not read in time; they are lost, too
	Tries   int     `json:"tries"`  // until it missed none, if it did
}

// What a wire is meant to reach on two cores that have nothing else to do. See GoalAir, too.
const (
	GoalUnshaped  = 8e9  // bit/s of TCP
	GoalRate      = 0.01 // off 1 Gbit/s
	GoalDelayP50  = 80   // µs off 5 ms
	GoalDelayP99  = 300
	GoalLoss      = 100000 // packets
	GoalIdleLinks = 100
	GoalIdleCPU   = 0.05
)

// MedianOf is 0 where there are none.
func MedianOf(values []float64) float64 { return median(append([]float64(nil), values...)) }

func measureWire(ctx context.Context, runs int, d time.Duration, packets int, progress func(string)) (WireGoals, error) {
	w := WireGoals{IdleLinks: GoalIdleLinks}
	progress("TCP over Wi-Fi, the model alone")
	var err error
	if w.Air, err = modelAir(); err != nil {
		return w, err
	}
	// Of a frame of 1514 bytes 1448 are TCP's, with timestamps.
	const payload = 1448.0 / 1514
	for i := range runs {
		of := fmt.Sprintf(", run %d of %d", i+1, runs)
		progress("TCP over a wire without a shape" + of)
		got, err := tcpOver(ctx, topology.Shape{}, d)
		if err != nil {
			return w, err
		}
		w.Unshaped, w.Congestion = append(w.Unshaped, got.BitsPerSecond), got.Congestion
		progress("TCP over a wire of 1 Gbit/s" + of)
		if got, err = tcpOver(ctx, topology.Shape{Rate: topology.Gbit}, d); err != nil {
			return w, err
		}
		w.TCP = append(w.TCP, got.BitsPerSecond/(payload*float64(topology.Gbit)))
		progress("TCP over Wi-Fi" + of)
		if err := w.Air.measure(ctx, d); err != nil {
			return w, err
		}
		progress("UDP over a wire of 1 Gbit/s" + of)
		m, err := measureLink(ctx, "wire", topology.Shape{Rate: topology.Gbit}, lab.Effort{Rate: d})
		if err != nil {
			return w, err
		}
		for _, m := range m {
			if m.Rate != nil {
				w.UDP = append(w.UDP, m.Rate.Seen/m.Rate.Wanted)
			}
		}
		progress("a delay of 5 ms" + of)
		if m, err = measureLink(ctx, "wire", topology.Shape{Delay: 5 * time.Millisecond}, lab.Effort{Probes: 1500}); err != nil {
			return w, err
		}
		e := linkError(m)
		w.P50, w.P99 = append(w.P50, e.P50), append(w.P99, e.P99)
		progress(fmt.Sprintf("%d idle wires%s", GoalIdleLinks, of))
		cpu, err := idle(ctx, GoalIdleLinks)
		if err != nil {
			return w, err
		}
		w.IdleCPU = append(w.IdleCPU, cpu)
	}
	progress(fmt.Sprintf("loss over %d packets", packets))
	// What an interface has no room for, as the wire stands still, is not lost by chance.
	const most = 3
	for w.Loss.Tries = 1; ; w.Loss.Tries++ {
		m, err := measureLink(ctx, "wire", topology.Shape{Loss: 0.01}, lab.Effort{Losses: packets})
		if err != nil {
			return w, err
		}
		if s := m[0].Loss; s != nil {
			w.Loss = LossSeen{s.Packets, s.Wanted, s.Seen, s.Low, s.High, m[0].Missed, w.Loss.Tries}
		}
		if m[0].Missed == 0 || w.Loss.Tries == most {
			break
		}
	}
	w.Floods = floods()
	for i := range w.Floods {
		f := &w.Floods[i]
		progress(fmt.Sprintf("what a wire holds that is flooded with frames of %d bytes", f.Frame))
		f.hold()
		if err := f.remember(ctx, d); err != nil {
			return w, err
		}
	}
	return w, nil
}

// tcpOver sends TCP from one node to another over a wire.
func tcpOver(ctx context.Context, shape topology.Shape, d time.Duration) (traffic.Result, error) {
	t, err := topology.New("link").Host("a").Host("b").Ethernet("a", "b").TCP("a", "b").Topology()
	if err != nil {
		return traffic.Result{}, err
	}
	t.Links[0].Shape = shape
	return sendTCP(ctx, t, "wire", d)
}

// sendTCP sends the first flow of a lab.
func sendTCP(ctx context.Context, t *topology.Topology, shaper string, d time.Duration) (got traffic.Result, err error) {
	p, err := t.Plan()
	if err != nil {
		return got, err
	}
	l, err := lab.Up(ctx, p, lab.Options{Shaper: shaper, Log: os.Stderr})
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, l.Down(context.WithoutCancel(ctx))) }()
	return l.Send(ctx, p.Traffic[0], d)
}

// idle is what share of a processor a chain of so many links takes that carries nothing.
func idle(ctx context.Context, n int) (_ float64, err error) {
	p, err := topology.Chain(n + 1).Plan()
	if err != nil {
		return 0, err
	}
	l, err := lab.Up(ctx, p, lab.Options{Shaper: "wire"})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Down(context.WithoutCancel(ctx))) }()
	const (
		first = time.Second // in which IPv6 tells of itself
		then  = 2 * time.Second
	)
	if err := pause(ctx, first); err != nil {
		return 0, err
	}
	before, err := used()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := pause(ctx, then); err != nil {
		return 0, err
	}
	after, err := used()
	return (after - before).Seconds() / time.Since(began).Seconds(), err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// used is the processor time of this process.
func used() (time.Duration, error) {
	var u unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}
