package links

import (
	"math"
	"time"

	"github.com/vishvananda/netlink"

	"pqlab/topology"
)

// tbf gives links their rate by the kernel's token bucket filter (tc-tbf(8)). It counts Ethernet frames without preamble
// and checksum: 14 bytes more than the IP packet.
type tbf struct{ kernel }

func (tbf) Name() string { return "tbf" }

func (t tbf) lacks(s topology.Shape) (needs, missing []string) {
	if s.Rate > 0 {
		if err := t.tbf(); err != nil {
			needs, missing = needsRate(s), []string{err.Error()}
		}
	}
	if impairments := s.Impairments(); impairments != nil {
		needs, missing = append(needs, impairments...), append(missing, "tbf gives a rate and nothing else")
	}
	return needs, missing
}

func (tbf) queues(s topology.Shape, mtu int, _ uint64) []netlink.Qdisc {
	return []netlink.Qdisc{bucket(s.Rate, mtu)}
}

func (tbf) seeded() bool { return true } // there is nothing random

const (
	// tick is what the kernel's packet scheduler counts time in (PSCHED_SHIFT in include/net/pkt_sched.h).
	tick = 64 * time.Nanosecond
	// latency is the longest that a packet waits for tokens before it is dropped; it sizes the queue.
	latency = 20 * time.Millisecond
	// refill is the time in which the whole bucket fills. Below the 4 ms of a jiffy at 250 Hz a slow timer costs rate.
	refill = 4 * time.Millisecond
	// header is what a frame has above the MTU.
	header = 14
	// most is more than any machine sends, in bytes per second. It stands for no rate at all.
	most = 4e11
)

// bucket is the filter for a link of that rate; 0 means any. The bucket holds a full frame at least: larger ones would be
// dropped.
func bucket(rate topology.Rate, mtu int) *netlink.Tbf {
	bytes := most
	if rate > 0 {
		bytes = min(max(float64(rate)/8, 1), most)
	}
	burst := max(bytes*refill.Seconds(), 4000, float64(mtu+header))
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{Handle: filterHandle, Parent: netlink.HANDLE_ROOT},
		Rate:       uint64(bytes),
		Limit:      uint32(min(bytes*latency.Seconds()+burst, math.MaxUint32)),
		Buffer:     uint32(min(math.Ceil(burst/bytes*float64(time.Second)/float64(tick)), math.MaxUint32)),
	}
}
