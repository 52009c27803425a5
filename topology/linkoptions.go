package topology

import (
	"errors"
	"fmt"
	"time"
)

// Delay of a link, one way.
func Delay(d time.Duration) LinkOption {
	return linkOption(func(l *Link) error { l.Delay = d; return nil })
}

// Jitter is the standard deviation of a link's delay.
func Jitter(d time.Duration) LinkOption {
	return linkOption(func(l *Link) error { l.Jitter = d; return nil })
}

// Loss is the share of packets that a link loses, 0 to 1.
func Loss(share float64) LinkOption {
	return linkOption(func(l *Link) error { l.Loss = share; return nil })
}

// LossCorrelation is that of the losses of two packets that follow one another, from 0 to less than 1.
func LossCorrelation(c float64) LinkOption {
	return linkOption(func(l *Link) error { l.LossCorrelation = c; return nil })
}

// A GilbertElliott is an option of a link.
func (g GilbertElliott) link(l *Link) error {
	l.GilbertElliott = g
	if g == (GilbertElliott{}) {
		return errors.New("an empty GilbertElliott loses nothing; leave it out")
	}
	return nil
}

// Distribution of a link's delay: "uniform", "normal", "pareto", "paretonormal".
func Distribution(name string) LinkOption {
	return linkOption(func(l *Link) error { l.Distribution = name; return nil })
}

// Table gives a link's delay an own distribution: equally likely values, of any mean and scale.
func Table(values ...float64) LinkOption {
	return linkOption(func(l *Link) error { l.Table = values; return nil })
}

// Unordered lets packets whose delay varies overtake each other.
func Unordered() LinkOption {
	return linkOption(func(l *Link) error { l.Unordered = true; return nil })
}

// RateTrace gives a link its rate by the clock, over and over.
func RateTrace(steps ...RateStep) LinkOption {
	return linkOption(func(l *Link) error { l.RateTrace = steps; return nil })
}

// LossTrace loses packets by their number: so many pass, so many are lost, so many pass … over and over.
func LossTrace(packets ...int) LinkOption {
	return linkOption(func(l *Link) error { l.LossTrace = packets; return nil })
}

// Outages are when nothing passes a link.
func Outages(outages ...Outage) LinkOption {
	return linkOption(func(l *Link) error { l.Outages = outages; return nil })
}

// A Queue is an option of a link.
func (q Queue) link(l *Link) error {
	l.Queue = q
	if q == (Queue{}) {
		return errors.New("an empty Queue is the one that a link has; leave it out")
	}
	return nil
}

// A Station is an option of a Wi-Fi link: it shares the air of its access point.
func (s Station) link(l *Link) error { l.WiFi = &s; return nil }

// A Cell is an option of an access point.
func (c Cell) node(n *Node) error { n.WiFi = &c; return nil }

// Slot gives a PCIe link the rate of a generation of PCI Express, 1 to 6, with so many lanes.
func Slot(generation, lanes int) LinkOption {
	return linkOption(func(l *Link) error { l.Generation, l.Lanes = generation, lanes; return nil })
}

// Duplication is the share of packets that come twice.
func Duplication(share float64) LinkOption {
	return linkOption(func(l *Link) error { l.Duplication = share; return nil })
}

// Reordering is the share of packets that skip the delay of a link and so overtake others.
func Reordering(share float64) LinkOption {
	return linkOption(func(l *Link) error { l.Reordering = share; return nil })
}

// Corruption is the share of packets in which a link turns a bit over.
func Corruption(share float64) LinkOption {
	return linkOption(func(l *Link) error { l.Corruption = share; return nil })
}

// Length of a fibre in metres.
func Length(metres float64) LinkOption {
	return linkOption(func(l *Link) error { l.Length = metres; return nil })
}

// Attenuation of a fibre in dB/km.
func Attenuation(perKilometre float64) LinkOption {
	return linkOption(func(l *Link) error { l.Attenuation = perKilometre; return nil })
}

// MTU of a link, bytes of IP packet.
func MTU(bytes int) LinkOption { return linkOption(func(l *Link) error { l.MTU = bytes; return nil }) }

// LinkSeed sets the seed of one link's randomness.
func LinkSeed(seed uint64) LinkOption {
	return linkOption(func(l *Link) error { l.Seed = seed; return nil })
}

// At gives a link's end at node an interface name (empty: Plan names it) and addresses.
func At(node, iface string, addresses ...string) LinkOption {
	return linkOption(func(l *Link) error {
		end := &l.A
		if l.B.Node == node {
			end = &l.B
		} else if l.A.Node != node {
			return fmt.Errorf("does not end at %q", node)
		}
		var err error
		end.Interface = iface
		end.Addresses, err = parsePrefixes(addresses)
		return err
	})
}
