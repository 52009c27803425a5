package wifi

import (
	"math"
	"slices"
	"testing"
	"time"

	"pqlab/links/medium"
)

// From -62 dBm on nobody begins to send during a burst; below, all do as if there were none.
func TestHearing(t *testing.T) {
	t.Parallel()
	for power, heard := range map[float64]bool{-63: false, -62: true, -61: true} {
		var bursts, ours []Exchange
		m := mustNew(t, Config{
			Seed: 1, Stations: []Station{{Profile: profile(t, "phone-ac-1x1-80"), MaxAMPDU: 8, Errors: ptr(0.0)}},
			Interferers: []Interferer{{Duty: 0.3, Power: power}},
			Observe: func(e Exchange) {
				if e.Port == medium.Nowhere {
					bursts = append(bursts, e)
				} else {
					ours = append(ours, e)
				}
			},
		})
		saturated(t, m, []int{0}, 2*time.Second)
		during := 0
		for _, e := range ours {
			if slices.ContainsFunc(bursts, func(b Exchange) bool { return b.From < e.From && e.From < b.To }) {
				during++
			}
		}
		if len(bursts) < 100 || heard != (during == 0) {
			t.Errorf("%v dBm: %d of %d transmissions began during one of %d bursts", power, during, len(ours), len(bursts))
		}
		for _, b := range bursts {
			if b.To-b.From != 2*time.Millisecond {
				t.Fatalf("a burst of %v", b.To-b.From)
			}
		}
	}
}

// jammed is a cell of one station, with nobody else on the air but one burst that nobody hears.
func jammed(t *testing.T, tries int, from, to time.Duration) *rig {
	g := newRig(t, Config{Seed: 1, Stations: []Station{{Profile: profile(t, "jetson-ac-2x2-80"), MCS: ptr(9), Errors: ptr(0.0), Tries: tries}}})
	g.m.noises = []*noise{{power: -30, burst: time.Millisecond, mean: 1e18, from: from, to: to}}
	return g
}

// A burst hits the MPDUs that it falls on and no others. 64 packets, of 1560 bytes each in the A-MPDU, are sent from 43 µs (AIFS)
// on, with a preamble of 44 µs, in 257 symbols of 3.6 µs, rounded up to 928 µs: each takes 14.5 µs, the first from 87 µs on. The BlockAck
// is from 1031 to 1063 µs.
func TestOneBurst(t *testing.T) {
	t.Parallel()
	const n = 64
	for _, tt := range []struct {
		name     string
		from, to time.Duration
		lost     [2]uint64 // the first, and the first after, that are lost
		answered bool
	}{
		{"before", 0, 43 * µs, [2]uint64{}, true},
		{"on the preamble", 50 * µs, 60 * µs, [2]uint64{0, n}, false},
		{"on the first", 88 * µs, 89 * µs, [2]uint64{0, 1}, true},
		{"in the middle", 400 * µs, 500 * µs, [2]uint64{21, 29}, true}, // (400-87)/14.5 is 21.6, (500-87)/14.5 is 28.5
		{"on the last", 1001 * µs, 1002 * µs, [2]uint64{63, 64}, true},
		{"between them and the BlockAck", 1016 * µs, 1030 * µs, [2]uint64{}, true},
		{"on the BlockAck", 1032 * µs, 1040 * µs, [2]uint64{}, false},
	} {
		g := jammed(t, 1, tt.from, tt.to)
		for range n {
			g.enter(0, 0, datagram)
		}
		g.drain()
		e := g.sends[slices.IndexFunc(g.sends, func(e Exchange) bool { return e.Port == 0 })]
		if e.MPDUs != n || e.From != 43*µs || e.To != 1063*µs || e.Answered != tt.answered {
			t.Errorf("%s: %+v", tt.name, e)
		}
		var lost, want []uint64
		for i := tt.lost[0]; i < tt.lost[1]; i++ {
			want = append(want, i)
		}
		for _, p := range g.out {
			if p.fate == medium.LostRetries {
				lost = append(lost, p.number)
			}
		}
		slices.Sort(lost)
		if !slices.Equal(lost, want) || len(g.out) != n || e.Failed != len(want) {
			t.Errorf("%s: %d were lost, %v, want %v", tt.name, e.Failed, lost, want)
		}
	}
}

// The receiver is told of a gap until it has heard it, as often as an MPDU is sent at most.
func TestBlockAckReqIsRepeated(t *testing.T) {
	t.Parallel()
	const tries = 4
	for _, tt := range []struct {
		name     string
		silent   int // BlockAckReqs after which the burst ends
		requests int
		answered bool // the last of them
	}{{"heard at once", 0, 1, true}, {"heard at the third", 2, 3, true}, {"never heard", math.MaxInt, tries, false}} {
		g := jammed(t, tries, 0, time.Hour)
		for range window {
			g.enter(0, 0, datagram)
		}
		ended := false
		for {
			at, ok := g.m.Next()
			if !ok {
				break
			}
			g.leave(at)
			ppdus, requests := 0, 0
			for _, e := range g.sends {
				switch {
				case e.Port == 0 && e.MPDUs > 0:
					ppdus++
				case e.Port == 0:
					requests++
				}
			}
			if !ended && ppdus == tries && requests >= tt.silent {
				ended, g.m.noises[0].to = true, g.now
			}
		}
		d := g.m.Snapshot().Stations[0].Up
		if last := g.sends[len(g.sends)-1]; int(d.Requests) != tt.requests || last.MPDUs != 0 || last.Answered != tt.answered {
			t.Errorf("%s: %d BlockAckReqs, want %d; the last transmission was %+v", tt.name, d.Requests, tt.requests, last)
		}
		if d.LostRetries != window || d.Queued != 0 {
			t.Errorf("%s: %+v", tt.name, d)
		}
	}
}
