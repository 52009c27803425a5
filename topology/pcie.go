package topology

import (
	"fmt"
	"slices"
)

// slotRate is what PCI Express carries in each direction, rounded down to Mbit/s: its transfers, less the encoding (PCI
// Express Base Specification 6.0, chapter 4: 8b/10b at 2.5 and 5 GT/s; 128b/130b at 8, 16 and 32 GT/s; at 64 GT/s flits of
// 256 bytes, 14 of which are check bytes). Headers of packets are not taken off.
func slotRate(generation, lanes int) Rate {
	var r Rate
	switch n := Rate(lanes); generation {
	case 1:
		r = n * 2500 * Mbit * 8 / 10
	case 2:
		r = n * 5 * Gbit * 8 / 10
	case 3, 4, 5:
		r = n * 8 * Gbit << (generation - 3) * 128 / 130
	case 6:
		r = n * 64 * Gbit * 242 / 256
	}
	return r / Mbit * Mbit
}

func laneCounts() []int { return []int{1, 2, 4, 8, 16} }

// slot is the rate that a link's PCI Express gives; 0 if it has none that there is.
func (l *Link) slot() Rate {
	if l.Kind != PCIe || !slices.Contains(laneCounts(), l.Lanes) {
		return 0
	}
	return slotRate(l.Generation, l.Lanes)
}

func (p *planner) checkSlot(i int, what string) {
	l := &p.links[i]
	at := func(key string) string { return fmt.Sprintf("links[%d].%s", i, key) }
	if l.Generation == 0 && l.Lanes == 0 {
		return
	}
	if l.Kind != PCIe {
		key := "gen"
		if l.Generation == 0 {
			key = "lanes"
		}
		p.add(BadValue, at(key), "%s: only a pcie link has a PCI Express generation and lanes; give a rate", what)
		return
	}
	switch {
	case l.Generation == 0:
		p.add(Missing, at("lanes"), "%s: lanes without a generation have no rate; give gen", what)
	case l.Generation < 1 || l.Generation > 6:
		p.add(BadValue, at("gen"), "%s: PCI Express generation %d is outside 1 to 6", what, l.Generation)
	}
	switch {
	case l.Lanes == 0:
		p.add(Missing, at("gen"), "%s: a generation without lanes has no rate; give lanes", what)
	case !slices.Contains(laneCounts(), l.Lanes):
		p.add(BadValue, at("lanes"), "%s: %d lanes are none of 1, 2, 4, 8, 16", what, l.Lanes)
	}
}

// checkSlotRate fills in the rate of the slot, and reports one that is above it.
func (p *problems) checkSlotRate(l *Link, s *Shape, at func(key string) string, what string) {
	slot := l.slot()
	if slot == 0 {
		return
	}
	bad := func(key string, r Rate) {
		p.add(BadValue, at(key), "%s: %s %v is more than the %v of PCI Express %d x%d", what, key, r, slot, l.Generation, l.Lanes)
	}
	switch {
	case s.Rate > slot:
		bad("rate", s.Rate)
	case len(s.RateTrace) > 0:
		if most := peak(s.RateTrace); most > slot {
			bad("rate_trace", most)
		}
	case s.Rate == 0:
		s.Rate = slot
	}
}

func peak(trace []RateStep) Rate {
	most := Rate(0)
	for _, step := range trace {
		most = max(most, step.Rate)
	}
	return most
}

// noteSlots tells of DPUs whose host cannot fill their fastest port.
func (p *planner) noteSlots() {
	for i := range p.links {
		l := &p.links[i]
		rate := l.Shape.peakRate()
		if l.Kind != PCIe || rate == 0 {
			continue
		}
		for _, n := range p.ends[i] {
			if p.nodes[n].Kind != DPU {
				continue
			}
			var port *Link
			for _, nic := range p.nodes[n].nics {
				if o := &p.links[nic.link]; o.Kind != PCIe && o.peakRate() > rate && (port == nil || o.peakRate() > port.peakRate()) {
					port = o
				}
			}
			if port != nil {
				slot := ""
				if l.slot() > 0 {
					slot = fmt.Sprintf(" (generation %d x%d)", l.Generation, l.Lanes)
				}
				p.notes = append(p.notes, fmt.Sprintf("link %s: PCI Express%s carries %v, less than the %v of link %s: host %s cannot fill that port of %s",
					l.Name, slot, rate, port.peakRate(), port.Name, p.nodes[n].Host, p.nodes[n].Name))
			}
		}
	}
}

// peakRate is the rate, or the highest of the rate trace; 0 if there is neither.
func (s Shape) peakRate() Rate { return max(s.Rate, peak(s.RateTrace)) }
