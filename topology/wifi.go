package topology

import (
	"fmt"
	"time"
)

// Station is the radio of the client or host at one end of a Wi-Fi link, and where it is. A link that has one has airtime:
// it shares the medium of its access point with the other stations there, and its rate, loss and jitter come of that.
// Nothing of its Shape but Delay, which is added behind the air, may be given.
type Station struct {
	Profile  string     // what radio it is: one of Radios()
	Distance float64    // metres to the access point; 0 means 5
	Walls    int        // between it and the access point
	Path     []Waypoint // in place of Distance and Walls: it moves

	MCS      *int // of the data frames, for each stream; nil: rate control chooses
	MaxAMPDU int  // MPDUs in an A-MPDU at most, 1 to 64; 0: as many as the radio can
}

// Waypoint is where a station is at some time. In between it moves in a straight line at constant speed, and the walls are
// those of the point before. It stays at the first point until then, and at the last from then on.
type Waypoint struct {
	At       time.Duration // after the link came up
	Distance float64       // metres to the access point
	Walls    int
}

// Cell is the medium of a Wi-Fi access point, which all its stations share. The zero value is a channel of 80 MHz without
// interferers.
type Cell struct {
	Width       int     // of the channel in MHz: 20, 40, 80, 160; 0 means 80. Stations use no more than they can
	Exponent    float64 // of the path loss; 0: that of the model
	Interferers []Interferer
}

// Interferer is another transmitter in a cell's channel, which defers to nobody.
type Interferer struct {
	Duty  float64 // share of the time in which it sends
	Power float64 // dBm, as received everywhere in the cell
}

// PlannedCell is the cell of a Wi-Fi link that has airtime.
type PlannedCell struct {
	AP   string // node
	Seed uint64 // of what is random in the cell
	Cell        // with its width filled in
}

// Radios returns the profiles that a Station may name. Package links/wifi knows what they are.
func Radios() []string {
	return []string{"bridge-ac-4x4-160", "iot-n-1x1-20", "jetson-ac-2x2-80", "laptop-ac-2x2-160", "phone-ac-1x1-80"}
}

// String says in words what the station is: "jetson-ac-2x2-80 at 5m behind 2 walls".
func (s Station) String() string {
	text := s.Profile
	switch {
	case len(s.Path) > 0:
		text += fmt.Sprintf(" on a path of %d points", len(s.Path))
	default:
		text += " at " + formatLength(s.Distance) + wallsText(s.Walls)
	}
	if s.MCS != nil {
		text += fmt.Sprintf(", MCS %d", *s.MCS)
	}
	if s.MaxAMPDU > 0 {
		text += fmt.Sprintf(", A-MPDU of %d", s.MaxAMPDU)
	}
	return text
}

func wallsText(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return " behind 1 wall"
	}
	return fmt.Sprintf(" behind %d walls", n)
}
