package topology

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Limits of Wi-Fi.
const (
	maxPath        = 4096
	maxInterferers = 64
	maxMCS         = 9 // of 802.11ac
	maxMCSn        = 7 // of 802.11n, for each stream
	maxWalls       = 100
	maxMSDU        = 2304 // bytes, IEEE 802.11-2020 section 9.2.4.8
	maxWindow      = 64   // MPDUs that a BlockAck of 802.11n and ac acknowledges
)

// widths are those of channels, in MHz.
func widths() []int { return []int{20, 40, 80, 160} }

// What a link's author leaves to Plan.
const (
	defaultWidth    = 80  // MHz
	defaultDistance = 5.0 // metres
)

// highestMCS is what a profile of Radios can in a channel of that width.
func highestMCS(profile string, width int) int {
	switch {
	case profile == "iot-n-1x1-20":
		return maxMCSn
	case width == 20:
		return maxMCS - 1 // 9 does not divide evenly for one and two streams, IEEE 802.11-2020 section 21.5
	}
	return maxMCS
}

// CheckDistance says why a station cannot be so many metres away from its access point.
func CheckDistance(metres float64) error {
	switch {
	case metres == 0:
		return errors.New("is where the access point is itself")
	case !(metres >= 0.1 && metres <= 10_000):
		return errors.New("is outside 0.1m to 10km")
	}
	return nil
}

// ParseDistance reads "20m" or "1.5km", from a station to its access point, as metres.
func ParseDistance(s string) (float64, error) {
	metres, err := parseLength(s)
	if err == nil {
		err = CheckDistance(metres)
	}
	return metres, err
}

// checkCell checks a node's cell.
func (p *planner) checkCell(i int) {
	n := &p.t.Nodes[i]
	if n.WiFi == nil {
		return
	}
	element, what := fmt.Sprintf("nodes[%d].wifi", i), "node "+clip(n.Name)
	bad := func(key, format string, args ...any) {
		p.add(BadValue, element+key, what+": wifi: "+format, args...)
	}
	if n.Kind != AP {
		p.add(BadStructure, element, "%s: a %s has no cell; only an ap has, and a station has its radio in the link to that", what, n.Kind)
	}
	c := n.WiFi
	if c.Width != 0 && !slices.Contains(widths(), c.Width) {
		bad(".width", "width %d MHz is none of 20, 40, 80, 160", c.Width)
	}
	if c.Exponent != 0 && !(c.Exponent >= 1 && c.Exponent <= 10) {
		bad(".exponent", "exponent %v is outside 1 to 10; in free space it is 2", c.Exponent)
	}
	if len(c.Interferers) > maxInterferers {
		bad(".interferers", "%d interferers are more than %d", len(c.Interferers), maxInterferers)
		return
	}
	busy, sane := 0.0, true
	for j, in := range c.Interferers {
		at := fmt.Sprintf(".interferers[%d]", j)
		if !(in.Duty > 0 && in.Duty < 1) {
			bad(at+".duty", "duty %v of an interferer is outside 0 to 1", in.Duty)
			sane = false
		}
		if !(in.Power >= -120 && in.Power <= 0) {
			bad(at+".power", "%v dBm of an interferer are outside -120 to 0", in.Power)
		}
		busy += in.Duty
	}
	if sane && busy >= 1 {
		bad(".interferers", "the interferers send all the time (%s together); nothing would ever pass", percent(busy))
	}
}

// checkStation checks the radio of a link, and fills in where it is.
func (p *planner) checkStation(i int, what string) {
	l := &p.links[i]
	if l.WiFi == nil {
		return
	}
	at := func(key string) string { return fmt.Sprintf("links[%d].wifi.%s", i, key) }
	p.checkStationEnds(i, what)
	s := l.WiFi.clone()
	l.WiFi = &s
	p.checkRadio(&s, p.widthOf(i), at, what)
	if l.MTU > maxMSDU && l.MTU <= maxMTU {
		p.add(BadValue, fmt.Sprintf("links[%d].mtu", i), "%s: MTU %d is more than the %d bytes that a Wi-Fi frame takes", what, l.MTU, maxMSDU)
	}
}

// checkRadio checks a station in a channel so wide, in MHz, and fills in where it is.
func (p *problems) checkRadio(s *Station, width int, at func(key string) string, what string) {
	bad := func(key, format string, args ...any) { p.add(BadValue, at(key), what+": wifi: "+format, args...) }
	known := p.oneOf(at("profile"), what+": wifi: profile", s.Profile, Radios(), false)
	checkPlace := func(key string, distance float64, walls int) {
		if err := CheckDistance(distance); err != nil {
			bad(key+"distance", "distance %s %v", formatLength(distance), err)
		}
		if walls < 0 || walls > maxWalls {
			bad(key+"walls", "%d walls are outside 0 to %d", walls, maxWalls)
		}
	}
	switch {
	case len(s.Path) == 0:
		s.Distance = cmp.Or(s.Distance, defaultDistance)
		checkPlace("", s.Distance, s.Walls)
	case s.Distance != 0 || s.Walls != 0:
		bad("path", "distance or walls, and path, are two ways to say where it is; give one")
	case len(s.Path) > maxPath:
		bad("path", "a path of %d points has more than %d", len(s.Path), maxPath)
	default:
		for j, w := range s.Path {
			key := fmt.Sprintf("path[%d].", j)
			switch {
			case w.At < 0 || w.At > maxTime:
				bad(key+"at", "at %v is outside 0s to %v", w.At, maxTime)
			case j > 0 && w.At <= s.Path[j-1].At:
				bad(key+"at", "at %v is not after the point before it, at %v", w.At, s.Path[j-1].At)
			}
			checkPlace(key, w.Distance, w.Walls)
		}
	}
	if most := highestMCS(s.Profile, width); s.MCS != nil && known && (*s.MCS < 0 || *s.MCS > most) {
		bad("mcs", "MCS %d is outside 0 to %d, which %s can in a channel of %d MHz", *s.MCS, most, s.Profile, width)
	}
	if s.MaxAMPDU < 0 || s.MaxAMPDU > maxWindow {
		bad("max_ampdu", "%d MPDUs are outside 1 to %d, which a BlockAck acknowledges", s.MaxAMPDU, maxWindow)
	}
}

// widthOf is that of the channel which a link uses.
func (p *planner) widthOf(i int) int {
	for _, n := range p.ends[i] {
		if n >= 0 && p.nodes[n].WiFi != nil {
			return cmp.Or(p.nodes[n].WiFi.Width, defaultWidth)
		}
	}
	return defaultWidth
}

// checkStationEnds sees that a link with airtime joins a station and an access point.
func (p *planner) checkStationEnds(i int, what string) {
	element := fmt.Sprintf("links[%d].wifi", i)
	if p.links[i].Kind != WiFi {
		p.add(BadStructure, element, "%s: only a link of kind wifi has a radio", what)
		return
	}
	stations, aps := 0, 0
	for _, n := range p.ends[i] {
		if n < 0 {
			return
		}
		switch p.nodes[n].Kind {
		case AP:
			aps++
		case Client, Host:
			stations++
		}
	}
	if stations != 1 || aps != 1 {
		p.add(BadStructure, element, "%s: a link with airtime joins a client or host and an ap; without wifi it joins what it likes, and is shaped as any other", what)
	}
}

// checkAir reports what of a shape the air decides.
func (p *problems) checkAir(s *Shape, at func(key string) string, what string) {
	for _, f := range shapeFields(func(s *Shape) *Shape { return s }) {
		if f.key != "delay" && !f.zero(s) {
			p.add(BadValue, at(f.key), "%s: %s does not go with wifi: where stations share the air, all but delay comes of radios, distances, walls and interferers", what, f.key)
		}
	}
	p.checkDelay(&Shape{Delay: s.Delay}, 0, at, what)
}

// cells are the media of the access points, by node.
func (p *planner) cells() map[int]*PlannedCell {
	cells := map[int]*PlannedCell{}
	for i := range p.links {
		if p.links[i].WiFi == nil {
			continue
		}
		for _, n := range p.ends[i] {
			if p.nodes[n].Kind != AP || cells[n] != nil {
				continue
			}
			c := &PlannedCell{AP: p.nodes[n].Name, Seed: seedOf(cmp.Or(p.t.Seed, 1), p.nodes[n].Name)}
			if p.nodes[n].WiFi != nil {
				c.Cell = p.nodes[n].WiFi.clone()
			}
			c.Width = cmp.Or(c.Width, defaultWidth)
			cells[n] = c
		}
	}
	return cells
}

func (s Station) clone() Station {
	s.Path = slices.Clone(s.Path)
	if s.MCS != nil {
		mcs := *s.MCS
		s.MCS = &mcs
	}
	return s
}

func (c Cell) clone() Cell {
	c.Interferers = slices.Clone(c.Interferers)
	return c
}
