package wifi

import (
	"math"
	"testing"
	"time"
)

// Rates in Mbit/s from the tables of IEEE 802.11-2020 19.5 and 21.5.
func TestRatesOfTheStandard(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		format       Format
		width        int
		streams, mcs int
		short        bool
		want         float64
	}{
		{HT, 20, 1, 0, false, 6.5}, {HT, 20, 1, 7, false, 65}, {HT, 20, 1, 7, true, 72.2}, {HT, 40, 4, 7, true, 600}, {HT, 40, 2, 7, true, 300},
		{VHT, 20, 1, 8, true, 86.7}, {VHT, 20, 3, 9, true, 288.9}, {VHT, 40, 1, 9, false, 180}, {VHT, 40, 2, 9, true, 400},
		{VHT, 80, 1, 9, true, 433.3}, {VHT, 80, 2, 9, true, 866.7}, {VHT, 80, 2, 7, true, 650}, {VHT, 80, 3, 9, true, 1300}, {VHT, 80, 4, 9, true, 1733.3},
		{VHT, 160, 1, 9, true, 866.7}, {VHT, 160, 2, 9, true, 1733.3}, {VHT, 160, 4, 9, true, 3466.7}, {VHT, 160, 4, 0, false, 234},
	} {
		all := rates(tt.format, tt.width, tt.streams, tt.short)
		i := rateIndex(all, tt.mcs, tt.streams)
		if i < 0 {
			t.Errorf("%v %d MHz: no MCS %d with %d streams", tt.format, tt.width, tt.mcs, tt.streams)
			continue
		}
		if got := all[i].bitRate() / 1e6; math.Abs(got-tt.want) > 0.05 {
			t.Errorf("%v %d MHz MCS %d with %d streams: %.2f Mbit/s, want %.1f", tt.format, tt.width, tt.mcs, tt.streams, got, tt.want)
		}
	}
}

// What the tables of 21.5 leave out, up to four streams, and how many encoders they name.
func TestRatesThatDoNotExist(t *testing.T) {
	t.Parallel()
	type combination struct{ width, streams, mcs int }
	missing := map[combination]bool{
		{20, 1, 9}: true, {20, 2, 9}: true, {20, 4, 9}: true, {80, 3, 6}: true, {160, 3, 9}: true,
	}
	encoders := map[combination]int{
		{80, 2, 6}: 1, {80, 2, 7}: 2, {80, 2, 9}: 2, {80, 1, 9}: 1, {80, 4, 9}: 3, {160, 1, 9}: 2, {160, 2, 9}: 3, {160, 4, 9}: 6, {160, 4, 7}: 6, {40, 4, 9}: 2,
	}
	for _, width := range []int{20, 40, 80, 160} {
		all := rates(VHT, width, maxStreams, true)
		for streams := 1; streams <= maxStreams; streams++ {
			for mcs := range 10 {
				c := combination{width, streams, mcs}
				i := rateIndex(all, mcs, streams)
				if (i < 0) != missing[c] {
					t.Errorf("%+v: exists: %v", c, i >= 0)
				}
				if n, ok := encoders[c]; ok && all[i].encoders != n {
					t.Errorf("%+v: %d encoders, want %d", c, all[i].encoders, n)
				}
			}
		}
	}
}

func TestDurations(t *testing.T) {
	t.Parallel()
	all := rates(VHT, 80, 2, true)
	r := &all[rateIndex(all, 9, 2)]
	// 36 + 2·4 µs, and ⌈(8·32·1560 + 16 + 12) / 3120⌉ = 129 symbols of 3.6 µs up to the next 4 µs.
	if got, want := r.duration(32*1560), 44*µs+468*µs; got != want {
		t.Errorf("32 MPDUs take %v, want %v", got, want)
	}
	if size := subframeSize(mpduSize(1500 + ethernet)); size != 1560 {
		t.Errorf("a packet of 1500 bytes takes %d in an A-MPDU, want 1560", size)
	}
	iot := rates(HT, 20, 1, false)
	// 32 + 4 µs, ⌈(8·100 + 22) / 26⌉ = 32 symbols.
	if got, want := iot[0].duration(100), 36*µs+32*4*µs; got != want {
		t.Errorf("100 bytes at 6.5 Mbit/s take %v, want %v", got, want)
	}
	for _, tt := range []struct {
		mcs          int
		ack, request time.Duration
	}{{0, 68 * µs, 56 * µs}, {1, 44 * µs, 40 * µs}, {2, 44 * µs, 40 * µs}, {3, 32 * µs, 32 * µs}, {9, 32 * µs, 32 * µs}} {
		if r := all[tt.mcs]; r.ack != tt.ack || r.request != tt.request {
			t.Errorf("MCS %d: BlockAck %v, BlockAckReq %v; want %v, %v", tt.mcs, r.ack, r.request, tt.ack, tt.request)
		}
	}
}

// The largest A-MPDU fits the longest PPDU, and nothing larger does.
func TestLongestPPDU(t *testing.T) {
	t.Parallel()
	for _, f := range []Format{HT, VHT} {
		for width := range f.facts().widths {
			for _, short := range []bool{false, true} {
				for _, r := range rates(f, width, maxStreams, short) {
					if d := r.duration(r.maxBytes); d > maxPPDU {
						t.Errorf("%v %d MHz %+v: %v", f, width, r, d)
					}
					if d := r.duration(r.maxBytes + r.symbolBits/8 + 1); d <= maxPPDU && r.maxBytes < f.facts().aggregate {
						t.Errorf("%v %d MHz %+v: %v would be possible", f, width, r, d)
					}
				}
			}
		}
	}
}
