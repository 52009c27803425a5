package wifi

import (
	"fmt"

	"pqlab/topology"
)

// FromPlan is the cell of the links that have its access point in common. Station i is that of links[i].
func FromPlan(links []topology.PlannedLink) (Config, error) {
	var c Config
	for i, l := range links {
		s, err := StationOf(l, [2]topology.Shape{l.Shape, l.Shape})
		if err != nil {
			return Config{}, err
		}
		if l.Cell.AP != links[0].Cell.AP {
			return Config{}, fmt.Errorf("%w: links %s and %s have different access points", ErrConfig, links[0].Name, l.Name)
		}
		if c.Stations = append(c.Stations, s); i > 0 {
			continue
		}
		c.Width, c.Seed, c.Radio.Exponent = l.Cell.Width, l.Cell.Seed, l.Cell.Exponent
		for _, in := range l.Cell.Interferers {
			c.Interferers = append(c.Interferers, Interferer{Duty: in.Duty, Power: in.Power})
		}
	}
	return c, nil
}

// StationOf is the station of a link whose ends, A and B, send with these shapes, of which a cell knows the delay.
func StationOf(l topology.PlannedLink, shapes [2]topology.Shape) (Station, error) {
	if l.WiFi == nil || l.Cell == nil {
		return Station{}, fmt.Errorf("%w: link %s has no airtime; give it wifi: {profile: …}", ErrConfig, l.Name)
	}
	p, ok := Profiles()[l.WiFi.Profile]
	if !ok {
		return Station{}, fmt.Errorf("%w: link %s: there is no profile %q", ErrConfig, l.Name, l.WiFi.Profile)
	}
	side := Port(0, l, 0)
	s := Station{
		Name: [2]topology.End{l.A, l.B}[side].Node, Profile: p,
		Distance: l.WiFi.Distance, Walls: l.WiFi.Walls, MCS: l.WiFi.MCS, MaxAMPDU: l.WiFi.MaxAMPDU,
		UpDelay: shapes[side].Delay, DownDelay: shapes[1-side].Delay,
	}
	for _, w := range l.WiFi.Path {
		s.Path = append(s.Path, Waypoint(w))
	}
	return s, nil
}

// Port is that of a side of the link (0 is A, 1 is B) whose station has this number.
func Port(number int, l topology.PlannedLink, side int) int {
	if l.Cell.AP == l.A.Node {
		side = 1 - side
	}
	return 2*number + side
}
