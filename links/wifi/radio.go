package wifi

import (
	"fmt"
	"math"
)

// Radio says how far a signal goes. Zero fields have the defaults.
type Radio struct {
	Frequency   float64 // centre of the channel, GHz; default 5.25
	Exponent    float64 // of path loss beyond Breakpoint; default 3.5
	Breakpoint  float64 // metres up to which loss is that of free space; default 5
	WallLoss    float64 // dB of each wall; default 5
	NoiseFigure float64 // dB, of every receiver; default 7
	Power       float64 // dBm that the access point sends with; default 20
}

// The defaults are those of the residential scenario of IEEE 802.11-14/0980r16 ("TGax Simulation Scenarios", scenario 1; the
// breakpoint and the exponents are TGn's channel model B, IEEE 802.11-03/940r4, which TGac keeps in 802.11-09/0308r12).
// ITU-R P.1238 has one exponent for all distances, 2.8 to 3.1 at 5.2 GHz: set Breakpoint to 1 for it.
func (r Radio) defaults() Radio {
	set := func(v *float64, to float64) {
		if *v == 0 {
			*v = to
		}
	}
	set(&r.Frequency, 5.25)
	set(&r.Exponent, 3.5)
	set(&r.Breakpoint, 5)
	set(&r.WallLoss, 5)
	set(&r.NoiseFigure, 7)
	set(&r.Power, 20)
	return r
}

// check says what no radio can be.
func (r Radio) check() error {
	for _, v := range []float64{r.Frequency, r.Exponent, r.Breakpoint, r.WallLoss, r.NoiseFigure} {
		if !(v >= 0) || math.IsInf(v, 0) {
			return fmt.Errorf("%w: radio %+v", ErrConfig, r)
		}
	}
	if math.IsNaN(r.Power) || math.IsInf(r.Power, 0) || r.Breakpoint < nearest {
		return fmt.Errorf("%w: radio %+v", ErrConfig, r)
	}
	return nil
}

// nearest is what is taken for a smaller distance: our choice, as usual models of path loss begin there.
const nearest = 1.0 // metre

// pathLoss in dB: Friis' free space up to the breakpoint, log-distance beyond.
func (r Radio) pathLoss(metres float64, walls int) float64 {
	d := max(metres, nearest)
	loss := 32.44778 + 20*math.Log10(r.Frequency) + 20*math.Log10(min(d, r.Breakpoint)) // 20·log10(4π·1 m·1 GHz/c)
	if d > r.Breakpoint {
		loss += 10 * r.Exponent * math.Log10(d/r.Breakpoint)
	}
	return loss + float64(walls)*r.WallLoss
}

// thermal is the noise of a receiver at 290 K, dBm in 1 Hz.
const thermal = -174

// floor is the noise of a receiver, dBm over a channel of that width in MHz.
func (r Radio) floor(width int) float64 {
	return thermal + 10*math.Log10(float64(width)*1e6) + r.NoiseFigure
}

// snr in dB at a receiver, over the whole channel.
func (r Radio) snr(power, metres float64, walls, width int) float64 {
	return power - r.pathLoss(metres, walls) - r.floor(width)
}

// streamSNR is the part of each spatial stream, which share the sender's power. Receivers gain nothing by their other
// antennas here.
func streamSNR(snr float64, streams int) float64 { return snr - 10*math.Log10(float64(streams)) }

// bitError is the probability that the first error event of Viterbi's decoder begins at a given bit: the union bound over the
// weights of the convolutional code (K = 7, generators 133 and 171, 17.3.5.6, punctured), with hard decisions. Real receivers decide softly, which
// gains some 2 dB, and lose about as much by their implementation. The weights are those of Frenger et al., "Multi-rate convolutional codes"
// (Chalmers R021/1998), and for 5/6 of Haccoun and Bégin (IEEE Trans. Commun. 37(11), 1989); the method is Pei and Henderson's "Validation of OFDM
// error rate model in ns-3" (Boeing, 2010).
func bitError(m modulation, snr float64) float64 {
	linear := math.Pow(10, snr/10)
	// Gray-coded M-QAM over a Gaussian channel (Proakis, Digital Communications, 4.3); BPSK has no quadrature.
	var p float64
	if m.bits == 1 {
		p = math.Erfc(math.Sqrt(linear)) / 2
	} else {
		points := float64(int(1) << m.bits)
		p = 2 / float64(m.bits) * (1 - 1/math.Sqrt(points)) * math.Erfc(math.Sqrt(1.5*linear/(points-1)))
	}
	distance, step, weights := spectrum(m.num)
	d := math.Sqrt(4 * p * (1 - p))
	sum := 0.0
	for i, w := range weights {
		sum += w * math.Pow(d, float64(distance+i*step))
	}
	return min(sum/float64(2*m.num), 0.5)
}

// spectrum is that of the code punctured to num/(num+1): how many bits are wrong in all paths at a distance, which begin at one
// of num bits in a row, by distance in steps from the least.
func spectrum(num int) (distance, step int, weights []float64) {
	switch num {
	case 1:
		return 10, 2, []float64{36, 211, 1404, 11633, 77433, 502690, 3322763, 21292910, 134365911}
	case 2:
		return 6, 1, []float64{3, 70, 285, 1276, 6160, 27128, 117019, 498860, 2103891, 8784123}
	case 3:
		return 5, 1, []float64{42, 201, 1492, 10469, 62935, 379644, 2253373, 13073811, 75152755, 428005675}
	default: // 5
		return 4, 1, []float64{92, 528, 8694, 79453, 792114, 7375573, 67884974, 610875423, 5427275376, 47664215639}
	}
}

// logSuccess is the logarithm of the probability that a bit is received; an MPDU of n bits is with exp(n·logSuccess).
func logSuccess(m modulation, snr float64) float64 { return math.Log1p(-bitError(m, snr)) }

// lossAt is the share of frames of so many bytes that are lost.
func lossAt(m modulation, snr float64, bytes int) float64 {
	return -math.Expm1(float64(8*bytes) * logSuccess(m, snr))
}
