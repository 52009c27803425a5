package links

import (
	"fmt"
	"math"
	"time"

	"github.com/vishvananda/netlink"

	"pqlab/internal/netns"
	"pqlab/topology"
)

// tbf gives links their rate by the kernel's token bucket filter (tc-tbf(8)) on both ends. It counts Ethernet frames
// without preamble and checksum: 14 bytes more than the IP packet.
type tbf struct{ kernel }

func (tbf) Name() string { return "tbf" }

func (t tbf) Lacks(link topology.PlannedLink) *LinkNeeds {
	lacks := LinkNeeds{Link: link.Name}
	if needs := needsRate(link); needs != nil {
		if err := t.tbf(); err != nil {
			lacks.Needs = append(lacks.Needs, needs...)
			lacks.Missing = append(lacks.Missing, err.Error())
		}
	}
	if needs := needsDelay(link); needs != nil {
		lacks.Needs = append(lacks.Needs, needs...)
		if err := t.netem(); err != nil {
			lacks.Missing = append(lacks.Missing, err.Error())
		} else {
			lacks.Missing = append(lacks.Missing, "this kernel has netem, but pqlab has no shaper that uses it yet")
		}
	}
	if lacks.Needs == nil {
		return nil
	}
	return &lacks
}

func (t tbf) connect(link topology.PlannedLink, a, b *netns.Namespace) (*Link, error) {
	if link.Rate == 0 {
		return newVeth(link, a, b, nil)
	}
	made, err := newVeth(link, a, b, func(h *netlink.Handle, index int) error {
		if err := h.QdiscAdd(bucket(link.Rate, link.MTU, index)); err != nil {
			return fmt.Errorf("tbf %v: %w", link.Rate, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	made.Shaper = t.Name()
	return made, nil
}

const (
	// tick is what the kernel's packet scheduler counts time in (PSCHED_SHIFT in include/net/pkt_sched.h).
	tick = 64 * time.Nanosecond
	// latency is the longest that a packet waits for tokens before it is dropped; it sizes the queue.
	latency = 20 * time.Millisecond
	// refill is the time in which the whole bucket fills. Below the 4 ms of a jiffy at 250 Hz a slow timer costs rate.
	refill = 4 * time.Millisecond
	// header is what a frame has above the MTU.
	header = 14
)

// bucket is the filter for a link of that rate. The bucket holds a full frame at least: larger ones would be dropped.
func bucket(rate topology.Rate, mtu, index int) *netlink.Tbf {
	bytes := max(float64(rate)/8, 1) // per second
	burst := max(bytes*refill.Seconds(), 4000, float64(mtu+header))
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: index,
			Handle:    netlink.MakeHandle(1, 0),
			Parent:    netlink.HANDLE_ROOT,
		},
		Rate:   uint64(bytes),
		Limit:  uint32(min(bytes*latency.Seconds()+burst, math.MaxUint32)),
		Buffer: uint32(min(math.Ceil(burst/bytes*float64(time.Second)/float64(tick)), math.MaxUint32)),
	}
}
