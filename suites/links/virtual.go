package links

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/links/medium"
	"pqlab/links/wifi"
	"pqlab/topology"
)

// virtual is what the models of links do in virtual time, as a wire drives them.
func virtual() {
	It("gives packets the fates of a recorded trace again", func() {
		shape := topology.Shape{
			Rate: 5 * topology.Mbit, Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, Unordered: true,
			Loss: 0.1, Duplication: 0.05, Reordering: 0.05, Corruption: 0.05,
		}
		var recorded bytes.Buffer
		recorder := medium.Record(medium.NewLink([2]topology.Shape{shape, shape}, 1500, [2]uint64{1, 2}), &recorded, medium.Header{Link: linkName})
		first := came(recorder)
		Expect(recorder.Flush()).To(Succeed())
		kinds := map[medium.Fate]bool{}
		for _, o := range first {
			kinds[o.fate] = true
		}
		Expect(kinds).To(HaveKey(medium.LostChance))
		Expect(kinds).To(HaveKey(medium.LostQueue))
		trace, err := medium.ReadTrace(&recorded)
		Expect(err).NotTo(HaveOccurred())
		again := came(medium.NewReplay(trace))
		Expect(again).To(HaveLen(len(first)))
		for i := range first { // one difference tells more than two lists
			Expect(again[i]).To(Equal(first[i]), "packet %d", i)
		}
		other := medium.NewLink([2]topology.Shape{shape, shape}, 1500, [2]uint64{3, 4})
		Expect(came(other)).NotTo(Equal(first), "another seed")
	})
	// The reference is the sum of what saturated stations get of airtime by hand, with one MPDU in ten lost.
	for stations, reference := range map[int]float64{1: 506, 2: 495, 4: 471, 8: 441} {
		It(fmt.Sprintf("shares the airtime of a Wi-Fi cell among %d saturated stations", stations), func() {
			mcs, errors := 9, 0.1
			var cell wifi.Config
			var ports []int
			for i := range stations {
				profile, ok := wifi.Profiles()["jetson-ac-2x2-80"]
				Expect(ok).To(BeTrue())
				cell.Stations = append(cell.Stations, wifi.Station{Name: fmt.Sprint(i), Profile: profile, MCS: &mcs, MaxAMPDU: 32, Errors: &errors})
				ports = append(ports, 2*i)
			}
			cell.Seed = seed
			m, err := wifi.New(cell)
			Expect(err).NotTo(HaveOccurred())
			got := saturated(m, ports, 10*time.Second)
			all := 0.0
			for _, g := range got {
				all += g / 1e6
				Expect(g/1e6).To(BeNumerically("~", reference/float64(stations), 0.3*reference/float64(stations)), "of one station")
			}
			Expect(math.Abs(all/reference-1)).To(BeNumerically("<", 0.05), "%.1f Mbit/s, not %.0f", all, reference)
		})
	}
}

// outcome is what became of a packet, be it one that was sent or a copy.
type outcome struct {
	from   int
	number uint64
	fate   medium.Fate
	due    time.Duration
	to     int
	flip   int
}

// came sends packets from both ends, more than the rate, and gives what came of them in that order.
func came(m medium.Medium) (all []outcome) {
	out := func(to int, p medium.Packet) {
		all = append(all, outcome{p.From, p.Number, p.Fate, p.Due, to, p.Flip})
	}
	now := time.Duration(0)
	for i := range 4000 {
		now = time.Duration(i) * 400 * time.Microsecond
		m.Leave(now, out)
		size := 60 + i*37%1400
		m.Enter(now, i%2, medium.Packet{Size: size, Frames: 1, Data: make([]byte, size)})
	}
	for {
		at, ok := m.Next()
		if !ok {
			break
		}
		m.Leave(max(at, now), out)
	}
	// What comes out at one time does so in no order.
	slices.SortFunc(all, func(a, b outcome) int {
		return cmp.Or(cmp.Compare(a.due, b.due), cmp.Compare(a.from, b.from), cmp.Compare(a.number, b.number), cmp.Compare(a.flip, b.flip))
	})
	return all
}

// saturated drives a cell in which ports always have more to send, and gives the bit/s of UDP payload of each that came out.
func saturated(m medium.Medium, ports []int, d time.Duration) map[int]float64 {
	GinkgoHelper()
	const payload, deep = 1472, 128
	frame := medium.Packet{Size: payload + headers, Frames: 1}
	got := map[int]float64{}
	for _, p := range ports {
		for range deep {
			m.Enter(0, p, frame)
		}
	}
	for {
		at, ok := m.Next()
		Expect(ok).To(BeTrue(), "a saturated cell has nothing to do")
		if at > d {
			return got
		}
		var again []int
		m.Leave(at, func(to int, p medium.Packet) {
			if to != medium.Nowhere {
				got[p.From] += payload * 8 / d.Seconds()
			}
			if p.Fate != medium.LostQueue { // which is full anyway
				again = append(again, p.From)
			}
		})
		for _, p := range again {
			m.Enter(at, p, frame)
		}
	}
}
