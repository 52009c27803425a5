package wifi

import (
	"math"
	"testing"
	"time"
)

// tally is what an observer of the channel counts of one direction.
type tally struct {
	PPDUs, Collisions, MPDUs, Failed, Requests uint64
	Airtime                                    time.Duration
	Sizes                                      [window + 1]uint64
	Rates                                      map[[2]int]RateCount // by streams and MCS
}

func (d Direction) tally() tally {
	t := tally{d.PPDUs, d.Collisions, d.MPDUs, d.Failed, d.Requests, d.Airtime, d.Sizes, map[[2]int]RateCount{}}
	for _, r := range d.Rates {
		t.Rates[[2]int{r.Streams, r.MCS}] = r
	}
	return t
}

// observed is what went over the air for what entered at a port.
func observed(all []Exchange, port int) tally {
	t := tally{Rates: map[[2]int]RateCount{}}
	for _, e := range all {
		if e.Port != port {
			continue
		}
		t.Airtime += e.To - e.From
		if e.Collided {
			t.Collisions++
		}
		if e.MPDUs == 0 {
			t.Requests++
			continue
		}
		t.PPDUs++
		t.MPDUs += uint64(e.MPDUs)
		t.Failed += uint64(e.Failed)
		t.Sizes[e.MPDUs]++
		r := t.Rates[[2]int{e.Streams, e.MCS}]
		t.Rates[[2]int{e.Streams, e.MCS}] = RateCount{e.Streams, e.MCS, r.PPDUs + 1, r.MPDUs + uint64(e.MPDUs), r.Failed + uint64(e.Failed)}
	}
	return t
}

// What a known share of errors makes of a known number of packets, counted once by who sends and once by who looks on.
func TestCountersOfKnownErrors(t *testing.T) {
	t.Parallel()
	const errors, size, each = 0.1, 1000, 40_000
	s := Station{Profile: profile(t, "phone-ac-1x1-80"), MCS: ptr(7), Errors: ptr(errors), Queue: each}
	g := newRig(t, Config{Seed: 4, Stations: []Station{s}})
	for range each {
		g.enter(0, 0, size)
	}
	g.drain()
	d := g.m.Snapshot().Stations[0].Up
	if d.Packets != each || d.Bytes != each*size || d.LostQueue != 0 {
		t.Fatalf("%+v", d)
	}
	// 99.9 % of a binomial share are within 3.29 standard deviations.
	if margin := 3.29 * math.Sqrt(errors*(1-errors)/float64(d.MPDUs)); math.Abs(d.PER()-errors) > margin {
		t.Errorf("PER %.4f, want %v ± %.4f", d.PER(), errors, margin)
	}
	// Each packet was sent once, and as often again as it was not received; none was lost 15 times in a row.
	if d.MPDUs-d.Failed != each || d.Retries != d.Failed || d.Retries != d.MPDUs-each {
		t.Errorf("of %d packets %d MPDUs, %d failed, %d retries", each, d.MPDUs, d.Failed, d.Retries)
	}
	if d.Delivered != each || d.DeliveredBytes != each*size {
		t.Errorf("%d packets with %d bytes were delivered, want %d with %d", d.Delivered, d.DeliveredBytes, each, each*size)
	}
	if mean := float64(d.MPDUs) / float64(d.PPDUs); d.MeanAMPDU() != mean {
		t.Errorf("A-MPDUs of %v, want %v", d.MeanAMPDU(), mean)
	}
}

// The SNR of either direction is its sender's power less what the way takes, over the noise: here by hand. At 5.25 GHz free
// space takes 46.85 dB at 1 m and 60.83 at 5; the noise is -87.97 dBm over 80 MHz, -93.99 over 20, -84.96 over 160.
func TestSNR(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		profile  string
		metres   float64
		walls    int
		up, down float64
	}{
		{"jetson-ac-2x2-80", 1, 0, 56.12, 61.12},
		{"jetson-ac-2x2-80", 5, 0, 42.14, 47.14},
		{"jetson-ac-2x2-80", 10, 0, 31.61, 36.61},
		{"jetson-ac-2x2-80", 50, 2, -2.86, 2.14},
		{"phone-ac-1x1-80", 5, 1, 37.14, 42.14},
		{"iot-n-1x1-20", 5, 0, 48.16, 53.16},
		{"laptop-ac-2x2-160", 5, 0, 39.13, 44.13},
		{"bridge-ac-4x4-160", 50, 0, 4.13, 9.13},
	} {
		m := mustNew(t, Config{Stations: []Station{{Profile: profile(t, tt.profile), Distance: tt.metres, Walls: tt.walls}}})
		got := m.Snapshot().Stations[0]
		if math.Abs(got.Up.SNR-tt.up) > 0.02 || math.Abs(got.Down.SNR-tt.down) > 0.02 {
			t.Errorf("%s at %v m behind %d walls: %.2f dB up, %.2f down; want %.2f, %.2f", tt.profile, tt.metres, tt.walls, got.Up.SNR, got.Down.SNR, tt.up, tt.down)
		}
	}
}
