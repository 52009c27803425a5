package northsouth

import (
	"slices"
	"time"

	"pqlab/experiments/samples"
	"pqlab/links/medium"
	"pqlab/links/wifi"
	"pqlab/topology"
)

// What lies around the payload of a full segment, in bytes: Ethernet's header, ESP in UDP in IPv4 with its padding, IPv4 and
// TCP with timestamps.
const (
	ethernet = 14
	esp      = 64
	tcpip    = 52
)

// backlog keeps a station busy; modelled is the virtual time that counts, after warmup, in which rate control finds its way.
const (
	backlog  = 256
	warmup   = 300 * time.Millisecond
	modelled = time.Second
)

// modelSeeds are how many seeds the model is asked with.
const modelSeeds = 5

// model asks the model with several seeds, from one on.
func (m *Measured) model(from uint64) error {
	var all []float64
	for i := range uint64(modelSeeds) {
		bits, err := m.Setting.model(from + i)
		if err != nil {
			return err
		}
		all = append(all, bits)
	}
	m.Model, m.ModelLow, m.ModelHigh = samples.Quantile(all, 0.5), slices.Min(all), slices.Max(all)
	return nil
}

// model is what the air of the setting carries of payload, all its stations together, in bit/s: full segments, one way, in
// virtual time.
func (s Setting) model(seed uint64) (float64, error) {
	plan, err := s.plan(seed)
	if err != nil {
		return 0, err
	}
	var air []topology.PlannedLink
	for _, l := range plan.Links {
		if isAir(l) {
			air = append(air, l)
		}
	}
	config, err := wifi.FromPlan(air)
	if err != nil {
		return 0, err
	}
	m, err := wifi.New(config)
	if err != nil {
		return 0, err
	}
	mtu := air[0].MTU
	enter := func(now time.Duration, port int) { m.Enter(now, port, medium.Packet{Size: ethernet + mtu, Frames: 1}) }
	for i, l := range air {
		side := 0 // of who sends
		if (l.A.Node == l.Cell.AP) != s.Down {
			side = 1
		}
		for range backlog {
			enter(0, wifi.Port(i, l, side))
		}
	}
	carried := mtu - esp // IP packets are what counts of UDP
	if s.Proto == "tcp" {
		carried -= tcpip
	}
	payload := 0
	for {
		now, ok := m.Next()
		if !ok || now > warmup+modelled {
			return float64(payload) * 8 / modelled.Seconds(), nil
		}
		var from []int
		m.Leave(now, func(_ int, p medium.Packet) {
			from = append(from, p.From)
			if !p.Fate.Lost() && now > warmup {
				payload += carried
			}
		})
		for _, port := range from {
			enter(now, port)
		}
	}
}
