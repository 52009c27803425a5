package wifi

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"pqlab/links/medium"
)

func TestNoAllocations(t *testing.T) {
	s := Station{Profile: profile(t, "jetson-ac-2x2-80"), Distance: 20, Errors: ptr(0.1)}
	m := mustNew(t, Config{Seed: 1, Stations: []Station{s, s}, Interferers: []Interferer{{Duty: 0.1, Power: -50}, {Duty: 0.1, Defers: true}}})
	saturated(t, m, []int{0, 1, 2, 3}, time.Second)
	var back []int
	allocations := testing.AllocsPerRun(2000, func() {
		at, _ := m.Next()
		back = back[:0]
		m.Leave(at, func(_ int, p medium.Packet) { back = append(back, p.From) })
		for _, p := range back {
			m.Enter(at, p, medium.Packet{Size: datagram, Frames: 1})
		}
	})
	if allocations > 0 {
		t.Errorf("%v allocations an event", allocations)
	}
}

func TestImpossibleCells(t *testing.T) {
	t.Parallel()
	good := Station{Profile: profile(t, "jetson-ac-2x2-80")}
	for name, change := range map[string]func(*Config, *Station){
		"no stations":     func(c *Config, _ *Station) { c.Stations = nil },
		"width":           func(c *Config, _ *Station) { c.Width = 30 },
		"HT in 80 MHz":    func(_ *Config, s *Station) { s.Format = HT },
		"no streams":      func(_ *Config, s *Station) { s.Streams = 0 },
		"five streams":    func(_ *Config, s *Station) { s.Streams = 5 },
		"MCS 10":          func(_ *Config, s *Station) { s.MCS = ptr(10) },
		"MCS of no width": func(c *Config, s *Station) { c.Width = 20; s.MCS = ptr(9) },
		"MCS -1":          func(_ *Config, s *Station) { s.MCS = ptr(-1) },
		"distance":        func(_ *Config, s *Station) { s.Distance = -1 },
		"walls":           func(_ *Config, s *Station) { s.Walls = -1 },
		"A-MPDU of 65":    func(_ *Config, s *Station) { s.MaxAMPDU = 65 },
		"errors":          func(_ *Config, s *Station) { s.Errors = ptr(1.1) },
		"tries":           func(_ *Config, s *Station) { s.Tries = 256 },
		"queue":           func(_ *Config, s *Station) { s.Queue = -1 },
		"delay":           func(_ *Config, s *Station) { s.UpDelay = -1 },
		"path goes back":  func(_ *Config, s *Station) { s.Path = []Waypoint{{At: 1}, {At: 1}} },
		"path to nowhere": func(_ *Config, s *Station) { s.Path = []Waypoint{{Distance: -1}} },
		"always jammed":   func(c *Config, _ *Station) { c.Interferers = []Interferer{{Duty: 1}} },
		"never jammed":    func(c *Config, _ *Station) { c.Interferers = []Interferer{{Duty: 0}} },
		"negative burst":  func(c *Config, _ *Station) { c.Interferers = []Interferer{{Duty: 0.5, Burst: -1}} },
		"path loss":       func(c *Config, _ *Station) { c.Radio.Exponent = -1 },
	} {
		s := good
		c := Config{Stations: []Station{s}}
		change(&c, &s)
		if c.Stations != nil {
			c.Stations[0] = s
		}
		if m, err := New(c); !errors.Is(err, ErrConfig) || m != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	m := mustNew(t, Config{Stations: []Station{good}})
	bad := good
	bad.Distance = -1
	other := good
	other.Streams = 1
	for _, s := range []Station{bad, other} {
		if err := m.SetStation(0, 0, s); !errors.Is(err, ErrConfig) || !reflect.DeepEqual(m.Station(0), good) {
			t.Errorf("became %+v: %v", m.Station(0), err)
		}
	}
	if err := m.SetInterferers(0, []Interferer{{Duty: 2}}); !errors.Is(err, ErrConfig) {
		t.Error(err)
	}
}
