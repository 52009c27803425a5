package links

import (
	"math"

	"github.com/vishvananda/netlink"

	"pqlab/links/medium"
	"pqlab/topology"
)

// netem gives links their whole shape by the kernel's network emulator (tc-netem(8)), between a token bucket filter and
// a queue:
//
//   - The filter takes packets in and cuts large segments into frames, so that each frame has a fate of its own; at the
//     other end of what is below, it lets frames out at the rate.
//   - netem delays, loses, duplicates, corrupts and reorders frames. It holds what is on its way and drops none for want
//     of room: its limit is counted in packets, and so only bounds memory.
//   - The queue holds frames whose delay is over and that wait for the rate, by bytes.
type netem struct{ kernel }

func (netem) Name() string { return "netem" }

// queuesAlone is why no link of queueing disciplines can do what is Scheduled, but for a queue's size.
const queuesAlone = "the kernel's queues (tbf, netem) follow no traces or outages, and none is CoDel"

func (n netem) lacks(s topology.Shape) (needs, missing []string) {
	scheduled := s
	if s.Queue.Kind != topology.CoDel {
		scheduled.Queue = topology.Queue{}
	}
	if scheduled := scheduled.Scheduled(); scheduled != nil {
		return scheduled, []string{queuesAlone}
	}
	errTBF := n.tbf()
	for _, err := range []error{n.netem(), errTBF} {
		if err != nil {
			missing = append(missing, err.Error())
		}
	}
	switch {
	case missing == nil:
		if !newSpread(s).fits() {
			return []string{"jitter " + s.Jitter.String()}, []string{"netem varies a delay by 2.1 s at most"}
		}
		return nil, nil
	case errTBF == nil && s.Impairments() != nil: // the rate could be had
		return s.Impairments(), missing
	}
	return append(needsRate(s), s.Impairments()...), missing
}

func (n netem) seeded() bool { return n.seeds() }

// Handles of the queues of an interface.
const (
	filterHandle   = 1 << 16
	emulatorHandle = 2 << 16
	backlogHandle  = 3 << 16
)

func (netem) queues(s topology.Shape, mtu int, seed uint64) []netlink.Qdisc {
	filter := bucket(s.Rate, mtu)
	// What is larger than the second bucket is cut. That bucket fills within a nanosecond and holds nothing up.
	filter.Peakrate, filter.Minburst = 2*most+1, uint32(mtu+header+vlanTag)
	spread := newSpread(s)
	return []netlink.Qdisc{
		filter,
		&rawQdisc{
			QdiscAttrs: netlink.QdiscAttrs{Handle: emulatorHandle, Parent: filterHandle | 1},
			kind:       "netem", options: netemOptions(s, spread, inFlight(s, spread, mtu), seed),
		},
		&rawQdisc{
			QdiscAttrs: netlink.QdiscAttrs{Handle: backlogHandle, Parent: emulatorHandle | 1},
			kind:       "bfifo", options: fifoOptions(uint32(medium.Room(s, mtu))),
		},
	}
}

// vlanTag is what a frame may have above its header.
const vlanTag = 4

// inFlight is the limit of netem in packets: what a link of that rate holds with its queue if its packets are small. A limit by the
// size of large ones would make a delay cost small ones their rate.
func inFlight(s topology.Shape, spread spread, mtu int) uint32 {
	const (
		small = 100 // bytes
		fast  = 2e6 // packets per second, more than one sender makes
		least = 1000
	)
	perSecond, waiting := fast, 0.0
	if s.Rate > 0 {
		perSecond, waiting = min(float64(s.Rate)/8/small, fast), float64(medium.Room(s, mtu))/small
	}
	held := 2*s.Delay.Seconds() + spread.most*s.Jitter.Seconds()
	return uint32(min(least+perSecond*held+waiting, math.MaxUint32))
}
