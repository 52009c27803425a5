package wifi

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Config is a cell.
type Config struct {
	Width    int    // of the channel, MHz: 20, 40, 80 or 160; 0: what its widest station has
	Seed     uint64 // of all chance
	Radio    Radio
	Stations []Station
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
}

// Waypoint is where a station is at a time. In between it walks straight, and has the walls of the waypoint that it left. After
// the last one it stays.
type Waypoint struct {
	At       time.Duration // since the medium's start, ascending
	Distance float64
	Walls    int
}

// Profile is what a kind of station can do.
type Profile struct {
	Format  Format
	Width   int     // MHz at most
	Streams int     // spatial, 1 to 4, in both directions
	ShortGI bool    // guard interval of 0.4 µs
	MaxMCS  int     // 0: all that the format has
	AMPDU   int     // MPDUs at most; 0: 64
	Power   float64 // dBm that it sends with
}

// Profiles are those that a topology names.
func Profiles() []string { return []string{"jetson-ac-2x2-80", "phone-ac-1x1-80", "iot-n-1x1-20"} }

// ProfileOf gives the profile of that name.
func ProfileOf(name string) (Profile, bool) {
	p, ok := map[string]Profile{
		// An M.2 card such as Jetson's developer kits take (Intel 8265): two antennas, 866.7 Mbit/s.
		"jetson-ac-2x2-80": {Format: VHT, Width: 80, Streams: 2, ShortGI: true, Power: 15},
		"phone-ac-1x1-80":  {Format: VHT, Width: 80, Streams: 1, ShortGI: true, Power: 15},
		// A microcontroller's radio: one antenna, 72.2 Mbit/s, and little memory to collect MPDUs in.
		"iot-n-1x1-20": {Format: HT, Width: 20, Streams: 1, ShortGI: true, AMPDU: 8, Power: 15},
	}[name]
	return p, ok
}

// defaultQueue is Linux' txqueuelen.
const defaultQueue = 1000

// ErrConfig is what New and Change give for what no cell can be.
var ErrConfig = errors.New("impossible Wi-Fi cell")

// New makes a cell in which nobody has sent anything yet.
func New(c Config) (*Medium, error) {
	m := &Medium{radio: c.Radio.defaults()}
	if c.Width == 0 {
		for _, s := range c.Stations {
			c.Width = max(c.Width, s.Width)
		}
	}
	var problems []error
	if len(c.Stations) == 0 {
		problems = append(problems, fmt.Errorf("%w: it has no station", ErrConfig))
	}
	ap := &node{cw: cwMin}
	ap.draws.Seed(c.Seed, 0)
	m.nodes = []*node{ap}
	for i, given := range c.Stations {
		s := &station{}
		if err := s.set(given, c.Width); err != nil {
			problems = append(problems, err)
			continue
		}
		n := &node{cw: cwMin}
		n.draws.Seed(c.Seed, uint64(i)+1)
		s.up = &flow{station: s, node: n, port: 2*i + 1, seed: c.Seed ^ uint64(2*i+1)<<40}
		s.down = &flow{station: s, node: ap, port: 2 * i, seed: c.Seed ^ uint64(2*i+2)<<40}
		n.flows = []*flow{s.up}
		ap.flows = append(ap.flows, s.down)
		m.nodes = append(m.nodes, n)
		m.stations = append(m.stations, s)
		m.flows = append(m.flows, s.up, s.down)
		m.equip(s)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return m, nil
}

// set takes over a station's description.
func (s *station) set(given Station, channel int) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: station %q: %s", ErrConfig, given.Name, fmt.Sprintf(format, args...))
	}
	facts := given.Format.facts()
	var problems []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			problems = append(problems, bad(format, args...))
		}
	}
	width := min(given.Width, channel)
	_, ok := facts.widths[width]
	check(ok, "%v has no channels of %d MHz", given.Format, width)
	check(given.Streams >= 1 && given.Streams <= maxStreams, "%d streams; there are 1 to %d", given.Streams, maxStreams)
	mcs := facts.mcs - 1
	if given.MaxMCS != 0 {
		mcs = given.MaxMCS
	}
	check(mcs >= 0 && mcs < facts.mcs, "%v has no MCS %d", given.Format, mcs)
	check(given.Distance >= 0 && !math.IsInf(given.Distance, 0), "distance %v m", given.Distance)
	check(given.Walls >= 0, "%d walls", given.Walls)
	check(given.MaxAMPDU >= 0 && given.MaxAMPDU <= window, "A-MPDU of %d; a BlockAck window holds %d", given.MaxAMPDU, window)
	check(given.AMPDU >= 0 && given.AMPDU <= window, "A-MPDU of %d; a BlockAck window holds %d", given.AMPDU, window)
	check(given.Tries >= 0 && given.Tries <= 255, "%d tries", given.Tries)
	check(given.Errors == nil || *given.Errors >= 0 && *given.Errors <= 1, "errors are outside 0 to 1")
	check(given.Queue >= 0 && given.QueueBytes >= 0, "a queue of less than nothing")
	for i, w := range given.Path {
		check(w.Distance >= 0 && !math.IsInf(w.Distance, 0) && w.Walls >= 0 && w.At >= 0 && (i == 0 || w.At > given.Path[i-1].At),
			"waypoint %d: %v", i, w)
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	all := rates(given.Format, width, given.Streams, mcs, given.ShortGI)
	if given.MCS != nil {
		check(rateIndex(all, *given.MCS, given.Streams) >= 0, "MCS %d does not exist with %d streams of %d MHz", *given.MCS, given.Streams, width)
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	s.Station, s.rates, s.width = given, all, width
	first := func(values ...int) int {
		for _, v := range values {
			if v > 0 {
				return v
			}
		}
		return 0
	}
	s.aggregate = first(given.MaxAMPDU, given.AMPDU, window)
	s.queue = first(given.Queue, defaultQueue)
	s.queueBytes = given.QueueBytes
	if s.queueBytes == 0 {
		s.queueBytes = math.MaxInt64
	}
	s.tries = first(given.Tries, defaultTries)
	s.window = window
	s.errors = -1
	if given.Errors != nil {
		s.errors = *given.Errors
	}
	return nil
}

func rateIndex(all []rate, mcs, streams int) int {
	for i, r := range all {
		if r.mcs == mcs && r.streams == streams {
			return i
		}
	}
	return -1
}

// equip gives a station's flows their rates.
func (m *Medium) equip(s *station) {
	m.locate(s, m.now)
	fixed := -1
	if s.MCS != nil {
		fixed = rateIndex(s.rates, *s.MCS, s.Streams)
	}
	for _, f := range []*flow{s.up, s.down} {
		f.rates = s.rates
		f.success, f.known, f.used = make([]float64, len(s.rates)), make([]bool, len(s.rates)), make([]RateCount, len(s.rates))
		f.control.reset(f, fixed)
	}
}

// locate tells a station's flows where it is.
func (m *Medium) locate(s *station, now time.Duration) {
	s.metres, s.walls = s.position(now)
	s.up.tune(m.radio.snr(s.Power, s.metres, s.walls, s.width))
	s.down.tune(m.radio.snr(m.radio.Power, s.metres, s.walls, s.width))
}

func (s *station) position(now time.Duration) (metres float64, walls int) {
	if len(s.Path) == 0 {
		return s.Distance, s.Walls
	}
	last := s.Path[0]
	for _, w := range s.Path {
		if w.At > now {
			if last.At > now {
				break
			}
			part := float64(now-last.At) / float64(w.At-last.At)
			return last.Distance + part*(w.Distance-last.Distance), last.Walls
		}
		last = w
	}
	return last.Distance, last.Walls
}
