package wifi

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Config is a cell.
type Config struct {
	Width       int    // of the channel, MHz: 20, 40, 80 or 160; 0: what its widest station can
	Seed        uint64 // of all chance
	Radio       Radio
	Stations    []Station
	Interferers []Interferer
	RoundRobin  bool // the access point serves stations by turns; otherwise it gives all the same airtime

	Observe func(Exchange) // is told all that is sent on the channel, as it ends; may be nil; may not call the Medium
}

// Station is one of a cell.
type Station struct {
	Name string
	Profile

	Distance float64    // to the access point, metres; less than 1 counts as 1
	Walls    int        // in between
	Path     []Waypoint // where it goes; in place of both

	MCS      *int     // fixed, with all of its streams; nil: rate control
	MaxAMPDU int      // MPDUs; 0: the profile's
	Errors   *float64 // share of MPDUs lost, in place of what the SNR gives
	Tries    int      // how often an MPDU is sent at most; 0: 15

	Queue      int   // frames that wait in each direction at most; 0: 1000
	QueueBytes int64 // the same in bytes; 0: no such limit

	UpDelay, DownDelay time.Duration // added behind the air, of what the station sends and gets
}

// Waypoint is where a station is at a time. In between it moves in a straight line at constant speed, and the walls are those
// of the point before. It stays at the first point until then, and at the last from then on.
type Waypoint struct {
	At       time.Duration // since the Medium's start, ascending
	Distance float64       // metres
	Walls    int
}

// Profile is what a kind of station can do.
type Profile struct {
	Format  Format
	Width   int     // MHz at most
	Streams int     // spatial, 1 to 4, both ways
	ShortGI bool    // guard interval of 0.4 µs
	AMPDU   int     // MPDUs at most; 0: 64
	Power   float64 // dBm that it sends with
}

// Profiles gives the profiles of topology.Radios by name. A station sends with 15 dBm (IEEE 802.11-14/0980r16).
func Profiles() map[string]Profile {
	return map[string]Profile{
		// A card for the slot of NVIDIA's Jetson developer kits, such as Intel's 8265: two antennas, 866.7 Mbit/s.
		"jetson-ac-2x2-80": {Format: VHT, Width: 80, Streams: 2, ShortGI: true, Power: 15},
		// A laptop's card such as Intel's 9260: two antennas and channels of 160 MHz, 1733.3 Mbit/s.
		"laptop-ac-2x2-160": {Format: VHT, Width: 160, Streams: 2, ShortGI: true, Power: 15},
		// The most that four antennas do with 802.11ac, as between two buildings, 3466.7 Mbit/s.
		"bridge-ac-4x4-160": {Format: VHT, Width: 160, Streams: 4, ShortGI: true, Power: 15},
		// 433.3 Mbit/s.
		"phone-ac-1x1-80": {Format: VHT, Width: 80, Streams: 1, ShortGI: true, Power: 15},
		// A microcontroller's radio: one antenna, 72.2 Mbit/s, and little memory to collect MPDUs in.
		"iot-n-1x1-20": {Format: HT, Width: 20, Streams: 1, ShortGI: true, AMPDU: 8, Power: 15},
	}
}

// defaultQueue is our choice: 18 ms at 667 Mbit/s. Linux' mac80211 has no such queue, but 8192 packets for all stations together
// (fq_init) and CoDel with a target of 20 ms for each flow, which is about the same.
const defaultQueue = 1000

// ErrConfig is that no cell can be as it is described.
var ErrConfig = errors.New("impossible Wi-Fi cell")

// New makes a cell in which nobody has sent anything yet. The error is ErrConfig, once for each thing that is wrong.
func New(c Config) (*Medium, error) {
	if c.Width == 0 {
		for _, s := range c.Stations {
			c.Width = max(c.Width, s.Width)
		}
	}
	m := &Medium{config: c, radio: c.Radio.defaults()}
	problems := []error{m.radio.check(), checkInterferers(c.Interferers)}
	if len(c.Stations) == 0 {
		problems = append(problems, fmt.Errorf("%w: it has no station", ErrConfig))
	}
	ap := newNode(c.Seed, 0)
	m.nodes = []*node{ap}
	for i, given := range c.Stations {
		problems = append(problems, given.check(c.Width))
		n := newNode(c.Seed, uint64(i)+1)
		s := &station{}
		s.up = &flow{station: s, node: n, port: 2 * i, seed: c.Seed ^ uint64(2*i+1)<<40}
		s.down = &flow{station: s, node: ap, port: 2*i + 1, seed: c.Seed ^ uint64(2*i+2)<<40}
		n.flows, ap.flows = []*flow{s.up}, append(ap.flows, s.down)
		m.nodes, m.stations, m.flows = append(m.nodes, n), append(m.stations, s), append(m.flows, s.up, s.down)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	for i, s := range m.stations {
		m.equip(s, c.Stations[i])
	}
	m.interfere(0, c.Interferers)
	return m, nil
}

// SetStation changes a station from now on, but for its profile, which it keeps. What it has sent, and what waits, stays. On
// error nothing is changed.
func (m *Medium) SetStation(now time.Duration, number int, to Station) error {
	s := m.stations[number]
	if to.Profile != s.Profile {
		return fmt.Errorf("%w: station %q: its profile cannot change while the cell runs; make another cell", ErrConfig, to.Name)
	}
	if err := to.check(m.config.Width); err != nil {
		return err
	}
	m.advance(now, false)
	m.equip(s, to)
	return nil
}

// Station is the station as it was described.
func (m *Medium) Station(number int) Station { return m.stations[number].Station }

// SetInterferers changes what interferes from now on. On error nothing is changed.
func (m *Medium) SetInterferers(now time.Duration, to []Interferer) error {
	if err := checkInterferers(to); err != nil {
		return err
	}
	m.advance(now, false)
	m.interfere(now, to)
	return nil
}

// check says what no station can be, of a cell whose channel is so wide.
func (given *Station) check(channel int) error {
	facts := given.Format.facts()
	var problems []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			problems = append(problems, fmt.Errorf("%w: station %q: %s", ErrConfig, given.Name, fmt.Sprintf(format, args...)))
		}
	}
	sane := func(v float64) bool { return v >= 0 && !math.IsInf(v, 0) }
	width := min(given.Width, channel)
	_, known := facts.widths[width]
	need(known, "%v has no channels of %d MHz", given.Format, width)
	several := given.Streams >= 1 && given.Streams <= maxStreams
	need(several, "%d streams are outside 1 to %d", given.Streams, maxStreams)
	if given.MCS != nil && known && several {
		need(rateIndex(rates(given.Format, width, given.Streams, given.ShortGI), *given.MCS, given.Streams) >= 0,
			"%v has no MCS %d with %d streams of %d MHz", given.Format, *given.MCS, given.Streams, width)
	}
	need(!math.IsNaN(given.Power) && !math.IsInf(given.Power, 0), "it sends with %v dBm", given.Power)
	need(sane(given.Distance), "distance %v m", given.Distance)
	need(given.Walls >= 0, "%d walls", given.Walls)
	need(given.MaxAMPDU >= 0 && given.MaxAMPDU <= window, "A-MPDUs of %d: a BlockAck acknowledges %d", given.MaxAMPDU, window)
	need(given.AMPDU >= 0 && given.AMPDU <= window, "A-MPDUs of %d: a BlockAck acknowledges %d", given.AMPDU, window)
	need(given.Tries >= 0 && given.Tries <= math.MaxUint8, "%d tries are outside 1 to %d", given.Tries, math.MaxUint8)
	need(given.Errors == nil || *given.Errors >= 0 && *given.Errors <= 1, "errors are outside 0 to 1")
	need(given.Queue >= 0 && given.QueueBytes >= 0, "a queue of less than nothing")
	need(given.UpDelay >= 0 && given.DownDelay >= 0, "a delay of less than nothing")
	for i, w := range given.Path {
		need(sane(w.Distance) && w.Walls >= 0 && (i == 0 || w.At > given.Path[i-1].At), "waypoint %d: %+v", i+1, w)
	}
	return errors.Join(problems...)
}

func checkInterferers(all []Interferer) error {
	var problems []error
	for i, in := range all {
		if !(in.Duty > 0 && in.Duty < 1) || math.IsNaN(in.Power) || math.IsInf(in.Power, 0) || in.Burst < 0 {
			problems = append(problems, fmt.Errorf("%w: interferer %d: %+v", ErrConfig, i+1, in))
		}
	}
	return errors.Join(problems...)
}
