package bench

import (
	"context"
	"time"

	"pqlab/links/medium"
	"pqlab/links/wifi"
	"pqlab/topology"
)

// Air is what TCP has of a Wi-Fi cell that a wire keeps to the airtime of, and what the cell's model alone gives it.
type Air struct {
	Station string    `json:"station"`
	Width   int       `json:"channel_mhz"`
	TCP     []float64 `json:"tcp_bits_per_second"` // of payload, from the station to a host behind the access point
	// Model is the same in virtual time, by a sender that is never slow and a receiver that acknowledges every second segment.
	Model float64 `json:"model_tcp_bits_per_second"`
	// Bare is what the model gives segments that nobody acknowledges.
	Bare float64 `json:"model_bits_per_second"`
}

// GoalAir is bit/s of TCP over Wi-Fi whose PHY allows as much.
const GoalAir = 1e9

// airLab has one station near its access point, whose PHY has 3.47 Gbit/s.
func airLab() (*topology.Topology, error) {
	t, err := topology.New("air").Client("station").AP("ap").Host("host").
		WiFi("station", "ap", topology.Station{Profile: "bridge-ac-4x4-160", Distance: 3}).Ethernet("ap", "host").TCP("station", "host").Topology()
	if err != nil {
		return nil, err
	}
	for i := range t.Nodes {
		if t.Nodes[i].Kind == topology.AP {
			t.Nodes[i].WiFi = &topology.Cell{Width: 160}
		}
	}
	return t, nil
}

// measureAir adds runs of TCP.
func (a *Air) measure(ctx context.Context, d time.Duration) error {
	t, err := airLab()
	if err != nil {
		return err
	}
	got, err := sendTCP(ctx, t, "auto", d)
	a.TCP = append(a.TCP, got.BitsPerSecond)
	return err
}

// modelAir is what there is to measure.
func modelAir() (a Air, err error) {
	t, err := airLab()
	if err != nil {
		return a, err
	}
	p, err := t.Plan()
	if err != nil {
		return a, err
	}
	link := p.Links[0]
	a.Station, a.Width = link.WiFi.String(), link.Cell.Width
	if a.Model, err = modelTCP(link, 2); err != nil {
		return a, err
	}
	a.Bare, err = modelTCP(link, 0)
	return a, err
}

// modelTCP is the payload that side A of the link with airtime sends in full segments, in bit/s of virtual time. The other side
// answers so many of them with an acknowledgement; 0: none.
func modelTCP(link topology.PlannedLink, perAck int) (float64, error) {
	const (
		headers  = 14 + 20 + 32 // Ethernet, IPv4, TCP with timestamps
		backlog  = 256          // segments
		warmup   = 300 * time.Millisecond
		duration = 2 * time.Second
	)
	config, err := wifi.FromPlan([]topology.PlannedLink{link})
	if err != nil {
		return 0, err
	}
	m, err := wifi.New(config)
	if err != nil {
		return 0, err
	}
	data, acks := wifi.Port(0, link, 0), wifi.Port(0, link, 1)
	segment := medium.Packet{Size: link.MTU + 14, Frames: 1}
	for range backlog {
		m.Enter(0, data, segment)
	}
	payload, unacknowledged := 0, 0
	for {
		now, ok := m.Next()
		if !ok || now > warmup+duration {
			return float64(payload) * 8 / duration.Seconds(), nil
		}
		again, answers := 0, 0
		m.Leave(now, func(_ int, p medium.Packet) {
			if p.From != data {
				return
			}
			again++
			if p.Fate.Lost() {
				return
			}
			if now > warmup {
				payload += p.Size - headers
			}
			if unacknowledged++; unacknowledged == perAck {
				unacknowledged = 0
				answers++
			}
		})
		for range again {
			m.Enter(now, data, segment)
		}
		for range answers {
			m.Enter(now, acks, medium.Packet{Size: headers, Frames: 1})
		}
	}
}
