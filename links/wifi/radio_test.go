package wifi

import (
	"math"
	"math/bits"
	"slices"
	"testing"
)

func TestPathLoss(t *testing.T) {
	t.Parallel()
	r := Radio{}.defaults()
	// IEEE 802.11-14/0980r16, scenario 1, with walls and no floors.
	want := func(d float64, walls int) float64 {
		loss := 40.05 + 20*math.Log10(5.25/2.4) + 20*math.Log10(min(d, 5)) + 5*float64(walls)
		if d > 5 {
			loss += 35 * math.Log10(d/5)
		}
		return loss
	}
	for _, d := range []float64{1, 2, 5, 10, 20, 100} {
		for walls := range 4 {
			if got, want := r.pathLoss(d, walls), want(d, walls); math.Abs(got-want) > 0.05 {
				t.Errorf("%v m, %d walls: %.2f dB, want %.2f", d, walls, got, want)
			}
		}
	}
	if near := r.pathLoss(0, 0); near != r.pathLoss(1, 0) {
		t.Errorf("at the antenna: %v dB", near)
	}
	// -174 dBm/Hz over 80 MHz is -95 dBm, with a noise figure of 7 dB -88.
	if got := r.floor(80); math.Abs(got+87.97) > 0.01 {
		t.Errorf("noise of 80 MHz: %.2f dBm", got)
	}
	if a, b := r.snr(20, 10, 0, 80), r.snr(20, 10, 0, 20); math.Abs(b-a-6.02) > 0.01 {
		t.Errorf("SNR of 80 MHz %.2f dB, of 20 MHz %.2f dB", a, b)
	}
}

// least is the SNR from which on fewer than one frame in ten is lost.
func least(m modulation, bytes int) float64 {
	low, high := -20.0, 60.0
	for high-low > 0.01 {
		if mid := (low + high) / 2; lossAt(m, mid, bytes) > 0.1 {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}

// Receivers must lose no more than one frame of 4096 bytes in ten at the sensitivity of Table 21-25, which allows for a noise
// figure of 10 dB and 5 dB of implementation loss. So the model must need about 15 dB less than the sensitivity is above the noise.
func TestErrorsAgainstSensitivity(t *testing.T) {
	t.Parallel()
	for mcs, sensitivity := range []float64{-82, -79, -77, -74, -70, -66, -65, -64, -59, -57} { // dBm, 20 MHz
		noise := thermal + 10*math.Log10(20e6)
		want := sensitivity - noise - 15
		got := least(modulationOf(mcs), 4096)
		t.Logf("MCS %d: %.1f dB; the standard's allowances leave %.1f", mcs, got, want)
		if math.Abs(got-want) > 3.5 {
			t.Errorf("MCS %d needs %.1f dB, want about %.1f", mcs, got, want)
		}
	}
}

func TestErrorsAreMonotonic(t *testing.T) {
	t.Parallel()
	for mcs := range 10 {
		m := modulationOf(mcs)
		for snr := -10.0; snr < 50; snr += 0.25 {
			a, b := lossAt(m, snr, 1500), lossAt(m, snr+0.25, 1500)
			if !(b <= a) || !(a >= 0 && a <= 1) {
				t.Fatalf("MCS %d: loss %v at %v dB, %v at 0.25 dB more", mcs, a, snr, b)
			}
			if long := lossAt(m, snr, 3000); long < a {
				t.Fatalf("MCS %d at %v dB: of longer frames fewer are lost", mcs, snr)
			}
		}
		if lossAt(m, -10, 1500) < 0.999 || lossAt(m, 50, 1500) > 1e-9 {
			t.Errorf("MCS %d: loss %v at -10 dB, %v at 50 dB", mcs, lossAt(m, -10, 1500), lossAt(m, 50, 1500))
		}
		if mcs > 0 && least(m, 1500) <= least(modulationOf(mcs-1), 1500) {
			t.Errorf("MCS %d needs no more than the one below", mcs)
		}
	}
}

// The spectra of the code that are published are those that its trellis has: K = 7, generators 133 and 171 (17.3.5.6),
// punctured as 17.3.5.6 and 19.3.11.6 have it.
func TestCodeSpectra(t *testing.T) {
	t.Parallel()
	const a, b = 0o133, 0o171
	for num, sent := range map[int][]struct{ a, b bool }{ // which of both is sent of each bit
		1: {{true, true}},
		2: {{true, true}, {true, false}},
		3: {{true, true}, {true, false}, {false, true}},
		5: {{true, true}, {true, false}, {false, true}, {true, false}, {false, true}},
	} {
		distance, step, want := spectrum(num)
		most := distance + step*len(want)
		got := make([]uint64, most) // wrong bits, by distance
		// Wrong paths by state and distance: how many, with how many wrong bits in all. They begin within the first num bits, and
		// end where they are back at the end of num bits: such is the code without puncturing that has the same output.
		type paths struct{ count, wrong uint64 }
		var now [64][]paths
		now[0] = make([]paths, most)
		now[0][0].count = 1
		for phase, left := 0, true; left; {
			var next [64][]paths
			for s := range next {
				next[s] = make([]paths, most)
			}
			for state := range now {
				for d, p := range now[state] {
					for bit := 0; bit < 2 && p.count > 0; bit++ {
						register, d := bit<<6|state, d
						if sent[phase].a {
							d += bits.OnesCount(uint(register&a)) & 1
						}
						if sent[phase].b {
							d += bits.OnesCount(uint(register&b)) & 1
						}
						if d < most {
							to := &next[register>>1][d]
							to.count += p.count
							to.wrong += p.wrong + uint64(bit)*p.count
						}
					}
				}
			}
			if phase = (phase + 1) % num; phase == 0 {
				for d, p := range next[0] {
					got[d] += p.wrong
				}
				next[0] = nil
			}
			now, left = next, false
			for _, at := range now {
				left = left || slices.ContainsFunc(at, func(p paths) bool { return p.count > 0 })
			}
		}
		for d, n := range got {
			weight := 0.0
			if i := d - distance; i >= 0 && i%step == 0 {
				weight = want[i/step]
			}
			if float64(n) != weight {
				t.Errorf("rate %d/%d: %d bits are wrong at distance %d, not %.0f", num, num+1, n, d, weight)
			}
		}
	}
}
